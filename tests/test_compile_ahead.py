"""Reading the programs that compilers make for absent chips, see `benchmarks/compile_ahead.py`."""

import json

import processes
import pytest

from benchmarks.compile_ahead import fused_attention
from benchmarks.compiled import estimate, moved
from vit_jax.parallel.compiled import executed, parse

TPU = """HloModule jit_train_step

%condition.1 (state: (s32[], f32[8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(12)
  ROOT %less = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%body.1 (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %x = f32[12,1000]{1,0} get-tuple-element(%state), index=1
  %fast = f32[1000]{0:T(256)S(1)} get-tuple-element(%state), index=2
  %product.2 = f32[8]{0} fusion(%fast), metadata={op_name="fn/to_qkv"}, "estimated_cycles":"100"
  %store.3 = f32[12,1000]{1,0} fusion(%x, %fast), calls=%update, metadata={op_name="transformer"}
  %short_attention_forward.7 = bf16[8,9]{1,0} custom-call(%x), target="tpu_custom_call"
  ROOT %tuple.1 = (s32[], f32[8]{0}) tuple(%i, %product.2)
}

ENTRY %main.1 (x: f32[8]) -> f32[8] {
  %copy.1 = (f32[8]{0}, /*index=1*/f32[8]{0}) copy(%x), "estimated_cycles":"7"
  %copy.2 = f32[8]{0} copy(%x), metadata={op_name="attn/norm"}, "estimated_cycles":"5"
  %while.1 = (s32[], f32[8]) while(%t), condition=%condition.1, body=%body.1
  ROOT %out = f32[8]{0} fusion(%y), metadata={op_name="optimizer"}, "estimated_cycles":"30"
}
"""

# Three instructions around a loop of two, which runs ten times.
SCHEDULE = """= control target key start
     0   :  { %s6 = smov 0  ;;  %s0 = inlined_call_operand.vmem }
   0x1 LB: > { %s7 = sadd.s32 4294967295, %s5 }
   0x2   : > { %p8 = scmp.ge.s32.totalorder %s11, 10 /* loop exit test */ }
   0x3   :  { %10 = sbr.rel (!%p8) target = $region2 }
   0x4   :  {}
"""

CUDA = """HloModule jit_train_step

%command_buffer (x: bf16[8]) -> bf16[8] {
  %kernel.1 = (bf16[8]{0}, u8[0]{0}) custom-call(%x), custom_call_target="__cudnn$fmhaSoftmax"
  %weights.2 = bf16[4,2,198,198]{3,2,1,0} fusion(%x)
}

%body.1 (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %call.1 = bf16[8]{0} call(%x), to_apply=%command_buffer
}

ENTRY %main.1 (x: f32[8]) -> f32[8] {
  %while.1 = (s32[], f32[8]) while(%t), body=%body.1, config={"known_trip_count":{"n":"12"}}
}
"""


def test_a_loop_counts_as_often_as_it_runs(tmp_path):
    (tmp_path / '17-short_attention_forward.3-00-schedule-analysis_final_bundles.txt').touch()
    (tmp_path / '17-short_attention_forward.3-01-final_bundles.txt').write_text(SCHEDULE)
    (tmp_path / '9-product.2-01-final_bundles.txt').write_text(SCHEDULE)
    cycles = estimate(TPU, tmp_path, bytes_per_cycle=4)
    issued = 12 * (3 + 10 * 2)
    assert cycles['pessimistic'] == {
        'products': 1200,
        'attention kernel': issued,
        'the rest': 30,
        'copies': 12,
        'scan and residuals': 0,
    }
    assert cycles['optimistic'] == {
        'products': issued,
        'attention kernel': 12 * 1036,  # moves more than it issues
        'the rest': 8,
        'copies': 16 + 8,
        'scan and residuals': 12 * 1000,
    }


def test_every_operation_of_a_program_is_found():
    names = [(operation.name, times) for operation, times in executed(*parse(TPU))]
    assert ('short_attention_forward.7', 12) in names and ('copy.1', 1) in names
    assert [name for name, _ in names].count('limit') == 0


def test_of_a_stack_one_slice_moves_and_what_the_core_holds_does_not():
    store = parse(TPU)[0]['body.1'][3]
    assert moved(store, 12) == 4000 and moved(store, 1) == 2 * 12 * 4000


def test_fused_attention_is_counted_by_layer():
    expected = {'forward_calls': 1, 'backward_calls': 0, 'score_arrays': 1}
    assert fused_attention(CUDA, 197, depth=12) == expected


@pytest.mark.slow
def test_the_toy_form_compiles_for_cpu_devices(tmp_path):
    output = tmp_path / 'toy.json'
    processes.run(processes.ROOT / 'benchmarks' / 'compile_ahead.py', '--toy', '--output', output)
    replicated, fsdp = json.loads(output.read_text())['rows']
    assert 'error' not in replicated | fsdp
    assert fsdp['state_bytes'] < 1.2 / 8 * replicated['state_bytes']
    assert set(replicated['collectives']) == {'all-reduce'} and 'all-gather' in fsdp['collectives']
    assert '| cpu 8 | Ti/16 | 16 | fsdp=8, data=1 |' in output.with_suffix('.md').read_text()

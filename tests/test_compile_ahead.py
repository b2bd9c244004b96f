"""Reading the programs that libtpu compiles, see `benchmarks/compile_ahead.py`."""

from benchmarks.compile_ahead import estimate, executed, parse

PROGRAM = """HloModule jit_train_step

%condition.1 (state: (s32[], f32[8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(12)
  ROOT %less = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%body.1 (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %product.2 = f32[8]{0} fusion(%x), metadata={op_name="fn/to_qkv"}, "estimated_cycles":"100"
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


def test_a_loop_counts_as_often_as_it_runs(tmp_path):
    (tmp_path / '17-short_attention_forward.3-00-schedule-analysis_final_bundles.txt').touch()
    (tmp_path / '17-short_attention_forward.3-01-final_bundles.txt').write_text(SCHEDULE)
    cycles = estimate(PROGRAM, tmp_path)
    kernel = 12 * (3 + 10 * 2)
    assert cycles == {'products': 1200, 'attention kernel': kernel, 'the rest': 30, 'copies': 12}


def test_every_operation_of_a_program_is_found():
    names = [(operation.name, times) for operation, times in executed(*parse(PROGRAM))]
    assert ('short_attention_forward.7', 12) in names and ('copy.1', 1) in names
    assert [name for name, _ in names].count('limit') == 0

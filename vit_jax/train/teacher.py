"""The teacher of a run: read from weights, and for the classes of the data."""

from typing import Any

from vit_jax.data.sources import Source
from vit_jax.errors import InputError
from vit_jax.train.distill import KINDS, Distillation
from vit_jax.train.start import Start, differing_classes
from vit_jax.weights.reading import read_weights


def read_teacher(
    start: Start,
    source: Source,
    *,
    weights: str | None,
    kind: str,
    alpha: float,
    temperature: float,
) -> tuple[Distillation | None, Any]:
    """How a teacher teaches a student, and its variables, float32, on the host.

    It computes in the student's dtype. If its weights lack mean and std of the pixels, those of the
    student are used, with a note.

    Args:
      start: of the student.
      source: of the data.
      weights: a run directory, a weight file or a Hugging Face folder; None for no teacher.
      kind, alpha, temperature: see `Distillation`.

    Raises:
      InputError: if the weights cannot be read or have other classes or channels than the data, its
        pictures have several labels, or the kind is unknown.
    """
    if weights is None:
        return None, None
    if kind not in KINDS:
        raise InputError(f"distill.kind: expected 'hard' or 'soft', got {kind!r}")
    if source.multi_label:
        raise InputError(
            'distill.weights: expected one label per picture, got multi-label data; None trains '
            'without a teacher'
        )
    try:
        teacher = read_weights(weights, dtype=start.model.dtype)
    except InputError as error:
        raise InputError(f'distill.weights: {error}') from None
    if differing := differing_classes(teacher, source.class_names):
        raise InputError(
            f'distill.weights: expected a teacher for the classes of the data, but {differing}; '
            f'fine-tune it on the data first'
        )
    own = start.preprocessing
    if teacher.model.channels != own.channels:
        raise InputError(
            f'distill.weights: expected a teacher for pictures with {own.channels} channels, as '
            f'the data has them, got one for {teacher.model.channels}'
        )
    notes = list(teacher.notes)
    if {'mean', 'std'} <= (teacher.description['preprocessing'] or {}).keys():
        preprocessing = teacher.preprocessing()
    else:
        preprocessing = teacher.preprocessing(own.mean, own.std)
        notes.append(f'mean {own.mean} and std {own.std} are those of the data: the file has none')
    print(f'teacher: {teacher.name}', *notes, sep='\n')
    distillation = Distillation(teacher.model, preprocessing, kind, alpha, temperature)
    return distillation, teacher.variables

"""Probes a model's features on a data source, and writes the model with the fitted classifier."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.data.picture import MAX_PIXELS
from vit_jax.errors import InputError
from vit_jax.use.features import Features, Report, extract_features, list_examples, log
from vit_jax.use.predict import Predictor
from vit_jax.use.probe import (
    NEIGHBOURS,
    TEMPERATURE,
    accuracy,
    fit_linear,
    knn_votes,
    with_head,
)
from vit_jax.weights import choose_format, save_weights


def probe_source(
    predictor: Predictor,
    source: str,
    method: str = 'knn',
    *,
    train_split: str = 'train',
    test_split: str = 'test',
    data_dir: str | None = None,
    features: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    on_error: str = 'raise',
    max_pixels: int = MAX_PIXELS,
    report: Report = log,
) -> dict[str, Any]:
    """Accuracy on the test split of what is learned from the features of the training split.

    Args:
      predictor: with the weights; its own classifier, if any, is not used.
      source, data_dir: see `vit_jax.data.sources.open_source`.
      method: 'knn', see `vit_jax.use.probe.knn_votes`, or 'linear', see `fit_linear`.
      train_split, test_split: of the source.
      features: a folder, made if necessary, that keeps the features as train.npz and test.npz; an
        interrupted extraction resumes there, and features of the same weights and pictures are
        used again. None for a temporary one.
      output: where to write the model with the linear classifier, with class names and
        preprocessing as far as the format has room for them.
      on_error, max_pixels, report: see `vit_jax.use.features.extract_features`.

    Returns:
      'data', 'method', 'split', 'num_train_examples', 'num_examples', 'accuracy';
      'top_5_accuracy' if there are more than five classes; and what the method chose.

    Raises:
      InputError: if an option is wrong, there is no such source or split, a picture is unusable, or
        no format that `output` may have can express the model.
    """
    if method not in ('knn', 'linear') or (output and method == 'knn'):
        raise InputError(f"method: expected 'knn' or 'linear', which has an output; got {method!r}")
    if output:
        if not Path(output).absolute().parent.is_dir():
            raise InputError(f'{output}: expected a file in an existing folder')
        choose_format(output, predictor.model)  # before hours of work
    pictures = {
        name: list_examples(predictor, source, split, data_dir)
        for name, split in (('train', train_split), ('test', test_split))
    }
    if any(found.records.multi_label for found in pictures.values()):
        raise InputError(f'{source}: expected one label per picture to probe, got multi-label data')
    options: Any = {'on_error': on_error, 'max_pixels': max_pixels, 'report': report}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(features or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        train, test = (
            extract_features(predictor, found, folder / f'{name}.npz', **options)
            for name, found in pictures.items()
        )
    scores, chosen = _learn(method, train, test, predictor, output)
    return {
        'data': source,
        'method': method,
        'split': test_split,
        'num_train_examples': len(train.names),
        'num_examples': len(test.names),
        **accuracy(scores, _labels(test)),
        **chosen,
    }


def _learn(
    method: str, train: Features, test: Features, predictor: Predictor, output: Any
) -> tuple[np.ndarray, dict[str, Any]]:
    """Scores of the test pictures for each class, and what there is to say of the method."""
    class_names, labels = train.class_names or [], _labels(train)
    if method == 'knn':
        votes = knn_votes(train.features, labels, test.features, len(class_names))
        return votes, {'neighbours': NEIGHBOURS, 'temperature': TEMPERATURE}
    probe = fit_linear(train.features, labels, len(class_names))
    if output:
        model, variables = with_head(predictor.model, predictor.variables, probe)
        used = predictor.preprocessing
        described = {'mean': used.mean, 'std': used.std, 'crop_fraction': used.crop_fraction}
        description = {'class_names': class_names, 'preprocessing': described}
        save_weights(output, model, variables, choose_format(output, model), description)
    best = probe.held_out[probe.l2]
    return probe.logits(test.features), {'l2': probe.l2, 'held_out_accuracy': best}


def _labels(features: Features) -> np.ndarray:
    assert features.labels is not None  # of a data source
    return features.labels

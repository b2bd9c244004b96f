"""The server's API in OpenAPI 3.1."""

from typing import Any

from vit_jax import __version__
from vit_jax.use.serving.uploads import FORMATS, Limits

MAX_TOP_K = 1000

PREDICTION = {
    'type': 'object',
    'required': ['class', 'probability'],
    'properties': {
        'class': {'type': 'string'},
        'probability': {'type': 'number', 'minimum': 0, 'maximum': 1},
    },
}
BYTES = {'type': 'string', 'contentEncoding': 'base64'}
ATTENTION = {
    'type': 'object',
    'description': (
        'How much of the attention each patch of the picture gets; the maps of weights and the '
        'rollout sum to 1. A map is a byte for each patch, row by row, where 255 is its peak.'
    ),
    'required': [
        'layers',
        'heads',
        'rows',
        'columns',
        'weights',
        'peaks',
        'rollout',
        'rollout_peak',
    ],
    'properties': {
        'layers': {'type': 'integer'},
        'heads': {'type': 'integer'},
        'rows': {'type': 'integer'},
        'columns': {'type': 'integer'},
        'weights': BYTES | {'description': 'uint8 [layers, heads, rows, columns]'},
        'peaks': {
            'description': '[layers, heads]: the weight that 255 stands for in each map.',
            'type': 'array',
            'items': {'type': 'array', 'items': {'type': 'number'}},
        },
        'rollout': BYTES | {'description': 'uint8 [rows, columns]: through all layers.'},
        'rollout_peak': {'type': 'number'},
    },
}
ANSWER = {
    'type': 'object',
    'description': 'predictions, or the error of a file that could not be read.',
    'required': ['name'],
    'properties': {
        'name': {'type': 'string', 'description': 'of the file, as it was sent'},
        'predictions': {'type': 'array', 'items': {'$ref': '#/components/schemas/Prediction'}},
        'attention': {'$ref': '#/components/schemas/Attention'},
        'error': {'type': 'string'},
    },
}
SCHEMAS = {
    'Prediction': PREDICTION,
    'Attention': ATTENTION,
    'Answer': ANSWER,
    'Answers': {
        'type': 'object',
        'required': ['answers'],
        'properties': {
            'answers': {'type': 'array', 'items': {'$ref': '#/components/schemas/Answer'}}
        },
    },
    'Error': {
        'type': 'object',
        'required': ['error'],
        'properties': {'error': {'type': 'string'}},
    },
}
REFUSALS = {
    '400': 'The form is damaged or has no file, or an option is wrong.',
    '403': "A browser sent this from another site's page.",
    '408': 'The request took too long to arrive.',
    '413': 'Too many bytes or pictures.',
    '415': 'This is not a multipart form.',
}


def describe_api(limits: Limits) -> dict[str, Any]:
    """The document behind GET /openapi.json."""

    def content(description: str, schema: str, kind: str = 'application/json') -> dict[str, Any]:
        reference = {'$ref': f'#/components/schemas/{schema}'}
        return {'description': description, 'content': {kind: {'schema': reference}}}

    picture = {'type': 'string', 'format': 'binary', 'maxLength': limits.picture_bytes}
    form = {
        'type': 'object',
        'description': (
            f'Files, whatever the fields are called: {", ".join(FORMATS)}; of at most '
            f'{limits.jpeg_pixels:,} pixels if JPEG, {limits.other_pixels:,} otherwise.'
        ),
        'properties': {'picture': {'type': 'array', 'items': picture, 'maxItems': limits.pictures}},
    }
    busy = content('Too busy; nothing was done.', 'Error')
    busy['headers'] = {
        'Retry-After': {'description': 'Seconds to wait.', 'schema': {'type': 'integer'}}
    }
    predict = {
        'summary': 'Classify pictures',
        'operationId': 'predict',
        'parameters': [
            _query('top_k', {'type': 'integer', 'minimum': 1, 'maximum': MAX_TOP_K, 'default': 5}),
            _query('attention', {'type': 'boolean', 'default': False}),
        ],
        'requestBody': {'required': True, 'content': {'multipart/form-data': {'schema': form}}},
        'responses': {
            '200': content('Every picture was classified.', 'Answers'),
            '422': content('At least one was not; the others have their answer.', 'Answers'),
            **{status: content(text, 'Error') for status, text in REFUSALS.items()},
            '503': busy,
        },
    }
    return {
        'openapi': '3.1.0',
        'info': {'title': 'vit_jax serve', 'version': __version__},
        'paths': {
            '/predict': {'post': predict},
            '/model': _get('Describe the model and the limits'),
            '/healthz': _get('Ready (200) or about to end (503)'),
            '/metrics': _get('Metrics for Prometheus', 'text/plain'),
        },
        'components': {'schemas': SCHEMAS},
    }


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {'name': name, 'in': 'query', 'schema': schema}


def _get(summary: str, kind: str = 'application/json') -> dict[str, Any]:
    answer = {'description': summary, 'content': {kind: {}}}
    return {'get': {'summary': summary, 'responses': {'200': answer}}}

"""RandAugment's and TrivialAugment's values as in torchvision, and AutoAugment's table 7."""

FACTORS = ('brightness', 'color', 'contrast', 'sharpness')


# All operations but AutoAugment's invert, as in torchvision: whether the sign is random, and the
# value for a strength of 0 to 1. For factors it is the difference from 1.


def no_value(strength):
    return 0


def randaugment_values(height, width):
    return {
        'identity': (False, no_value),
        'shear_x': (True, lambda s: 0.3 * s),
        'shear_y': (True, lambda s: 0.3 * s),
        'translate_x': (True, lambda s: 150 / 331 * width * s),
        'translate_y': (True, lambda s: 150 / 331 * height * s),
        'rotate': (True, lambda s: 30 * s),
        **dict.fromkeys(FACTORS, (True, lambda s: 0.9 * s)),
        'posterize': (False, lambda s: 8 - 4 * s),
        'solarize': (False, lambda s: 256 * (1 - s)),
        'autocontrast': (False, no_value),
        'equalize': (False, no_value),
    }


def trivialaugment_values(height, width):
    return randaugment_values(height, width) | {
        'shear_x': (True, lambda s: 0.99 * s),
        'shear_y': (True, lambda s: 0.99 * s),
        'translate_x': (True, lambda s: width * s),  # 32 of CIFAR's 32 pixels
        'translate_y': (True, lambda s: height * s),
        'rotate': (True, lambda s: 135 * s),
        **dict.fromkeys(FACTORS, (True, lambda s: 0.99 * s)),
        'posterize': (False, lambda s: 8 - 6 * s),
    }


# AutoAugment's table 7: operation, probability in tenths, level.
TABLE_7 = """
    invert 1 7, contrast 2 6
    rotate 7 2, translate_x 3 9
    sharpness 8 1, sharpness 9 3
    shear_y 5 8, translate_y 7 9
    autocontrast 5 8, equalize 9 2
    shear_y 2 7, posterize 3 7
    color 4 3, brightness 6 7
    sharpness 3 9, brightness 7 9
    equalize 6 5, equalize 5 1
    contrast 6 7, sharpness 6 5
    color 7 7, translate_x 5 8
    equalize 3 7, autocontrast 4 8
    translate_y 4 3, sharpness 2 6
    brightness 9 6, color 2 8
    solarize 5 2, invert 0 3
    equalize 2 0, autocontrast 6 0
    equalize 2 8, equalize 6 4
    color 9 9, equalize 6 6
    autocontrast 8 4, solarize 2 8
    brightness 1 3, color 7 0
    solarize 4 5, autocontrast 9 3
    translate_y 9 9, translate_y 7 9
    autocontrast 9 2, solarize 8 3
    equalize 8 8, invert 1 3
    translate_y 7 9, autocontrast 9 1
"""


def table_7():
    """25 pairs of (operation, probability, level)."""
    for line in TABLE_7.strip().splitlines():
        parts = [part.split() for part in line.split(',')]
        yield [(name, int(tenths) / 10, int(level)) for name, tenths, level in parts]

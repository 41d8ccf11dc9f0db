"""Augmentation leaves a judgement valid: one change for all three, answers that follow a swap."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lpipstore.pipeline.training.augmentation import AUGMENTATIONS, Augmentation

GEOMETRY_AND_COLOUR = tuple(name for name in AUGMENTATIONS if name != "swap")
changes = st.lists(st.sampled_from(GEOMETRY_AND_COLOUR), min_size=1, unique=True).map(tuple)
seeds = st.integers(0, 2**32 - 1)


def noise(seed: int, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 16, 20), generator=generator, dtype=torch.uint8)


@given(changes, seeds, seeds)
@settings(max_examples=60, deadline=None)
def test_all_three_images_get_the_same_change(names, seed, pixels):
    one = noise(pixels)
    changed, judge = Augmentation(names)(one.expand(3, -1, -1, -1), 0.25, seed)
    assert torch.equal(changed[0], changed[1])
    assert torch.equal(changed[0], changed[2])
    assert judge == 0.25
    assert changed.shape == (3, *one.shape[1:])
    assert changed.dtype == torch.uint8


@given(changes, seeds, seeds)
@settings(max_examples=30, deadline=None)
def test_what_an_image_becomes_does_not_depend_on_its_place(names, seed, pixels):
    triplet = noise(pixels, 3)
    changed, _ = Augmentation(names)(triplet, 0.5, seed)
    turned, _ = Augmentation(names)(triplet[[2, 0, 1]], 0.5, seed)
    assert torch.equal(turned, changed[[2, 0, 1]])


@given(seeds, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_the_judge_follows_a_swap(seed, judge):
    triplet = noise(seed % 97, 3)
    changed, answer = Augmentation(("swap",))(triplet, judge, seed)
    assert torch.equal(changed[0], triplet[0])
    if torch.equal(changed[1], triplet[1]):
        assert answer == judge
    else:
        assert torch.equal(changed[1:], triplet[[2, 1]])
        assert answer == 1 - judge


def test_about_half_is_swapped():
    triplet = noise(0, 3)
    answers = [Augmentation(("swap",))(triplet, 1.0, seed)[1] for seed in range(200)]
    assert 70 < sum(answers) < 130


@given(st.lists(st.sampled_from(AUGMENTATIONS), unique=True).map(tuple), st.booleans(), seeds)
@settings(max_examples=40, deadline=None)
def test_a_seed_repeats_it_and_nothing_else_is_touched(names, independent, seed):
    triplet, change = noise(1, 3), Augmentation(names, independent)
    before = torch.get_rng_state()
    first, second = change(triplet, 0.75, seed), change(triplet, 0.75, seed)
    assert torch.equal(first[0], second[0])
    assert first[1] == second[1]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["rotate", "crop", "colour"])
def test_independent_changes_differ_when_asked_for(name):
    one = noise(2).expand(3, -1, -1, -1)
    changed, _ = Augmentation((name,), independent=True)(one, 0.5, 5)
    assert not torch.equal(changed[0], changed[1])
    assert not torch.equal(changed[0], changed[2])


@pytest.mark.parametrize("name", GEOMETRY_AND_COLOUR)
def test_every_change_changes_something(name):
    one = noise(3, 3)
    assert any(not torch.equal(Augmentation((name,))(one, 0.5, seed)[0], one) for seed in range(9))

"""CIFAR-100's classes: the 20 superclasses, and the five subsets on which ADaPT was evaluated.

Fine classes are numbered in the alphabetical order of their names, as in the files of
https://www.cs.toronto.edu/~kriz/cifar.html; superclasses likewise. The subsets are those of Rajagopal
and Bouganis, "Now that I can see, I can improve" (arXiv 2006.08554), as unions of superclasses.
They overlap: small_mammals is in `outdoor` and `natural`, and `random` shares classes with all the others.
large_carnivores is in none.
"""

SUPERCLASSES: dict[str, tuple[str, ...]] = {
    name: tuple(members.split())
    for name, members in {
        "aquatic_mammals": "beaver dolphin otter seal whale",
        "fish": "aquarium_fish flatfish ray shark trout",
        "flowers": "orchid poppy rose sunflower tulip",
        "food_containers": "bottle bowl can cup plate",
        "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
        "household_electrical_devices": "clock keyboard lamp telephone television",
        "household_furniture": "bed chair couch table wardrobe",
        "insects": "bee beetle butterfly caterpillar cockroach",
        "large_carnivores": "bear leopard lion tiger wolf",
        "large_man-made_outdoor_things": "bridge castle house road skyscraper",
        "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
        "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
        "medium_mammals": "fox porcupine possum raccoon skunk",
        "non-insect_invertebrates": "crab lobster snail spider worm",
        "people": "baby boy girl man woman",
        "reptiles": "crocodile dinosaur lizard snake turtle",
        "small_mammals": "hamster mouse rabbit shrew squirrel",
        "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
        "vehicles_1": "bicycle bus motorcycle pickup_truck train",
        "vehicles_2": "lawn_mower rocket streetcar tank tractor",
    }.items()
}

FINE_CLASSES: tuple[str, ...] = tuple(sorted(name for names in SUPERCLASSES.values() for name in names))

_SUBSETS: dict[str, str] = {
    "aquatic": "aquatic_mammals fish",
    "indoor": "food_containers household_electrical_devices household_furniture",
    "outdoor": "large_man-made_outdoor_things large_natural_outdoor_scenes vehicles_1 vehicles_2 trees"
    " small_mammals people",
    "natural": "flowers fruit_and_vegetables insects large_omnivores_and_herbivores medium_mammals"
    " non-insect_invertebrates small_mammals reptiles",
    "random": "aquatic_mammals fish flowers fruit_and_vegetables household_furniture"
    " large_man-made_outdoor_things large_omnivores_and_herbivores medium_mammals"
    " non-insect_invertebrates people reptiles trees vehicles_2",
}

SUBSETS: dict[str, frozenset[int]] = {
    name: frozenset(FINE_CLASSES.index(fine) for group in groups.split() for fine in SUPERCLASSES[group])
    for name, groups in _SUBSETS.items()
}
"""Subset name -> fine labels (0..99)."""

COARSE_OF_FINE: tuple[int, ...] = tuple(
    next(coarse for coarse, members in enumerate(SUPERCLASSES.values()) if fine in members)
    for fine in FINE_CLASSES
)
"""Fine label -> coarse label (0..19): the order of SUPERCLASSES is the files' own."""

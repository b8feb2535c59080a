"""LIBERO's four suites of ten tasks, and LIBERO-PRO's four variants of each, by their names and order.

Ids: "libero/spatial", "libero/object", "libero/goal", "libero/10" (LIBERO-Long), and for one task
"libero/goal/turn_on_the_stove" and so on. The sentences are LIBERO's: its name without the scene, with spaces.

LIBERO-PRO: "libero/object_swap" (objects change places), "_object" (other objects), "_lan" (other words), "_task"
(another goal). Its tasks keep LIBERO's names. "_lan" and "_task" are asked for in LIBERO-PRO's words, the other two in
LIBERO's, which a policy was trained on.
"""

from __future__ import annotations

import re

from pirl_sim.benchmark_env import SparseSuite, SparseTask
from pirl_sim.environments import facts

PREFIX = "libero/"
MAX_STEPS = {"spatial": 220, "object": 280, "goal": 300, "10": 520}
"""control steps of one episode, as openpi's examples/libero/main.py has them: longer than any demonstration"""

TASKS = {
    "spatial": (
        "pick_up_the_black_bowl_between_the_plate_and_the_ramekin_and_place_it_on_the_plate",
        "pick_up_the_black_bowl_next_to_the_ramekin_and_place_it_on_the_plate",
        "pick_up_the_black_bowl_from_table_center_and_place_it_on_the_plate",
        "pick_up_the_black_bowl_on_the_cookie_box_and_place_it_on_the_plate",
        "pick_up_the_black_bowl_in_the_top_drawer_of_the_wooden_cabinet_and_place_it_on_the_plate",
        "pick_up_the_black_bowl_on_the_ramekin_and_place_it_on_the_plate",
        "pick_up_the_black_bowl_next_to_the_cookie_box_and_place_it_on_the_plate",
        "pick_up_the_black_bowl_on_the_stove_and_place_it_on_the_plate",
        "pick_up_the_black_bowl_next_to_the_plate_and_place_it_on_the_plate",
        "pick_up_the_black_bowl_on_the_wooden_cabinet_and_place_it_on_the_plate",
    ),
    "object": (
        "pick_up_the_alphabet_soup_and_place_it_in_the_basket",
        "pick_up_the_cream_cheese_and_place_it_in_the_basket",
        "pick_up_the_salad_dressing_and_place_it_in_the_basket",
        "pick_up_the_bbq_sauce_and_place_it_in_the_basket",
        "pick_up_the_ketchup_and_place_it_in_the_basket",
        "pick_up_the_tomato_sauce_and_place_it_in_the_basket",
        "pick_up_the_butter_and_place_it_in_the_basket",
        "pick_up_the_milk_and_place_it_in_the_basket",
        "pick_up_the_chocolate_pudding_and_place_it_in_the_basket",
        "pick_up_the_orange_juice_and_place_it_in_the_basket",
    ),
    "goal": (
        "open_the_middle_drawer_of_the_cabinet",
        "put_the_bowl_on_the_stove",
        "put_the_wine_bottle_on_top_of_the_cabinet",
        "open_the_top_drawer_and_put_the_bowl_inside",
        "put_the_bowl_on_top_of_the_cabinet",
        "push_the_plate_to_the_front_of_the_stove",
        "put_the_cream_cheese_in_the_bowl",
        "turn_on_the_stove",
        "put_the_bowl_on_the_plate",
        "put_the_wine_bottle_on_the_rack",
    ),
    "10": (
        "LIVING_ROOM_SCENE2_put_both_the_alphabet_soup_and_the_tomato_sauce_in_the_basket",
        "LIVING_ROOM_SCENE2_put_both_the_cream_cheese_box_and_the_butter_in_the_basket",
        "KITCHEN_SCENE3_turn_on_the_stove_and_put_the_moka_pot_on_it",
        "KITCHEN_SCENE4_put_the_black_bowl_in_the_bottom_drawer_of_the_cabinet_and_close_it",
        "LIVING_ROOM_SCENE5_put_the_white_mug_on_the_left_plate_and_put_the_yellow_and_white_mug_on_the_right_plate",
        "STUDY_SCENE1_pick_up_the_book_and_place_it_in_the_back_compartment_of_the_caddy",
        "LIVING_ROOM_SCENE6_put_the_white_mug_on_the_plate_and_put_the_chocolate_pudding_to_the_right_of_the_plate",
        "LIVING_ROOM_SCENE1_put_both_the_alphabet_soup_and_the_cream_cheese_box_in_the_basket",
        "KITCHEN_SCENE8_put_both_moka_pots_on_the_stove",
        "KITCHEN_SCENE6_put_the_yellow_and_white_mug_in_the_microwave_and_close_it",
    ),
}
"""suite -> LIBERO's names; the place in the list is the number that LIBERO's benchmark knows the task by"""


VARIANTS = ("swap", "object", "lan", "task")
"""LIBERO-PRO's"""
REWORDED = ("lan", "task")
PARTS = {part: part for part in TASKS} | {f"{part}_{kind}": part for part in TASKS for kind in VARIANTS}
"""suite or variant -> the suite whose names and time limits it has"""


def folder_and_index(name: str) -> tuple[str, int]:
    """Return LIBERO's name of the suite and the number of the task in it."""
    part, _, task = name.partition("/")
    return f"libero_{part}", TASKS[PARTS[part]].index(task)


def suite(suite_id: str) -> SparseSuite:
    """Return the suite, or the suite of one task, of this id.

    Raises ValueError for an unknown one, and for words of LIBERO-PRO that are not installed.
    """
    part, slash, name = suite_id.removeprefix(PREFIX).partition("/")
    known = TASKS[PARTS[part]] if suite_id.startswith(PREFIX) and part in PARTS else ()
    if not known or (slash and name not in known):
        ids = ", ".join(PREFIX + part for part in TASKS) + f" (or with _{', _'.join(VARIANTS)} of LIBERO-PRO)"
        of_suite = f"; of this suite: {', '.join(known)}" if known else ""
        raise ValueError(f"unknown task '{suite_id}'; known: {ids}, each with /<one of its tasks>{of_suite}")
    return SparseSuite(suite_id, tuple(_task(part, chosen) for chosen in ((name,) if slash else known)))


def _task(part: str, name: str) -> SparseTask:
    return SparseTask(f"{part}/{name}", _sentence(part, name), MAX_STEPS[PARTS[part]])


def _sentence(part: str, name: str) -> str:
    if not part.endswith(tuple(f"_{kind}" for kind in REWORDED)):
        return re.sub(r"^[A-Z_]+SCENE\d+_", "", name).replace("_", " ")
    words = facts("libero").get(part)
    if words is None:
        raise ValueError(f"the words of '{PREFIX}{part}' come with LIBERO-PRO: pirl sim install libero")
    return str(words[name])

"""Tiny random members of every autoregressive family; prompts of different lengths share one word-level tokenizer.

A family in `sjd_pipelines.pipelines.families` has its members in the file of its name here, as `MEMBERS`; what every
family must hold is tested on all of them.
"""

from importlib import import_module

from sjd_pipelines.pipelines.families import AUTOREGRESSIVE, FAMILIES

from .parts import Member

MEMBERS: dict[str, Member] = {
    name: member
    for family in FAMILIES
    if family.kind == AUTOREGRESSIVE
    for name, member in import_module(f".{family.module}", __package__).MEMBERS.items()
}

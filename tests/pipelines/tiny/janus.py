"""A tiny Janus: the package's own toy."""

from sjd_pipelines import SJDJanusPipeline
from sjd_pipelines.benchmark.toy import toy_pipeline

from .parts import Member


def janus_pipeline(side: int, codes: int) -> SJDJanusPipeline:
    pipe = toy_pipeline(side, codes)
    pipe.set_progress_bar_config(disable=True)
    return pipe


MEMBERS = {"janus": Member(lambda: janus_pipeline(4, 16), lambda: janus_pipeline(2, 4))}

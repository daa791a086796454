"""How a process of a run starts: without packages it does not need, and collecting less garbage.

Ray calls `prepare` in each of its workers before anything of veRL is imported there. It imports
nothing but the standard library.
"""

import gc
import sys

LEFT_OUT = ("megatron", "sklearn")
"""What veRL and transformers find they import, in every process, for seconds of a core each.

The actor is transformers' model under FSDP2, so veRL (utils/import_utils.py:28) needs no Megatron;
transformers (generation/candidate_generator.py:30) wants sklearn for its assistants.
"""

YOUNG_OBJECTS = 200_000
"""Objects made before the young ones are looked through; Python's 700 are a third of an import."""


def prepare() -> None:
    """Makes this process import little and look for garbage seldom."""
    for name in LEFT_OUT:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    gc.set_threshold(YOUNG_OBJECTS)


def keep_what_is_there() -> None:
    """Takes what lives now, mostly modules, out of every later look for garbage.

    Half a million objects take half a second, and a step's rows of tensors call for that.
    """
    gc.freeze()

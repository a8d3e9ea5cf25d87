"""What a camera's picture is worth: dark, burnt out, blurred?"""

from __future__ import annotations

from edgecap.checkup.finding import Facts, Finding, fail, none, ok
from edgecap.model import Verdict

PICTURE_FIX = {
    "dark": "take the lens cap off, or light the scene; raise exposure_us or max_exposure_us, if set",
    "overexposed": "turn the camera away from the light; where exposure_us or gain is set, lower it",
    "blurred": "peel the film off the lens, clean it, set its focus; show it some text: a wall is no sharper",
}


def judge_picture(verdict: Verdict, state: str) -> Finding | None:
    """A row of its own beside the stream's rate; None for what is no camera.

    Args:
        verdict: With the numbers of the last look.
        state: What held in every look of late: of `PICTURE_FIX`, or another.
    """
    if verdict.brightness is None:
        return None
    check = f"picture {verdict.stream}"
    facts: Facts = {
        "sharpness": verdict.sharpness,
        "brightness": verdict.brightness,
        "clipped": verdict.clipped,
        "crushed": verdict.crushed,
    }
    text = f"brightness {verdict.brightness:.2f}, sharpness {verdict.sharpness:.0f}"
    text += f", clipped {verdict.clipped:.0%}"
    if state in PICTURE_FIX:
        return fail(check, f"{state}: {text}", PICTURE_FIX[state], **facts)
    return ok(check, text, **facts)


def unseen(stream: str, seconds: float) -> Finding:
    """The row of a camera whose picture was looked at too few times, or never."""
    return none(f"picture {stream}", f"looked at too few times within {seconds:g} s to be judged")

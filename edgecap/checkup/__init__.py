"""What `edgecap doctor` looks at: one file per subject, each check a function from the exam to findings."""

from edgecap.checkup.exam import Exam, Roots
from edgecap.checkup.finding import Finding
from edgecap.checkup.rounds import CHECKS, Check, examine

__all__ = ["CHECKS", "Check", "Exam", "Finding", "Roots", "examine"]

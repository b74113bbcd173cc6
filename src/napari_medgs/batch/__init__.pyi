from .params import BatchParams as BatchParams
from .run import BatchResult as BatchResult
from .run import Case as Case
from .run import find_cases as find_cases
from .run import fit_many as fit_many

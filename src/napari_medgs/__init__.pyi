from .data.field import GaussianField as GaussianField
from .data.grid import Grid as Grid
from .data.phantom import make_phantom as make_phantom
from .data.volume import Volume as Volume
from .errors import MedGSError as MedGSError
from .fitting.api import FitResult as FitResult
from .fitting.api import fit as fit
from .fitting.params import FitParams as FitParams
from .io import read_labels as read_labels
from .io import read_volume as read_volume
from .io import write_image as write_image
from .io import write_labels as write_labels
from .io.fields import load_field as load_field
from .io.fields import save_field as save_field
from .io.meshes import load_meshes as load_meshes
from .io.meshes import save_meshes as save_meshes
from .meshing.api import mesh as mesh
from .meshing.params import MeshParams as MeshParams
from .metrics.segmentation import evaluate as evaluate
from .rendering.api import render as render
from .rendering.api import render_labels as render_labels
from .segmentation.api import segment as segment
from .segmentation.interactive import InteractiveSegmenter as InteractiveSegmenter
from .segmentation.params import SegmentParams as SegmentParams
from .segmentation.prompts.prompts import Prompts as Prompts
from .segmentation.result.result import SegmentResult as SegmentResult

__version__: str

from .api import mesh as mesh
from .api import mesh_from_field as mesh_from_field
from .api import mesh_from_image as mesh_from_image
from .api import mesh_from_labels as mesh_from_labels
from .params import MeshParams as MeshParams

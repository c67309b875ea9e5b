"""What a basis is: the protocols, and the linear ones: the neurons themselves, principal components, any rotation."""

from .linear import PCA as PCA
from .linear import Basis as Basis
from .linear import BasisRecipe as BasisRecipe
from .linear import Neurons as Neurons
from .linear import Rotation as Rotation
from .linear import basis_width as basis_width
from .linear import directions as directions

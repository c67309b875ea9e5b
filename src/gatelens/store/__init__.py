"""The store: how anything reaches the disk and comes back unharmed.

Write protocol: temporary files in the same folder, written, flushed and hashed; then one small file that says
"all of this is on the disk" (the commit); then every file is moved into place, and the manifest with every SHA-256
last. A process killed before the commit leaves the earlier artefact, one killed after it the new one. A reader trusts
only what the manifest lists and the hash confirms. Importing this room imports neither torch nor numpy.
"""

from .artefact import Reading as Reading
from .artefact import Writing as Writing
from .artefact import damage as damage
from .artefact import reading as reading
from .artefact import understood as understood
from .artefact import writing as writing
from .files import check_space as check_space
from .files import check_target as check_target
from .files import file_sha256 as file_sha256
from .files import free_bytes as free_bytes
from .files import readable as readable
from .files import replace_file as replace_file
from .files import sweep as sweep
from .lock import forget_locks as forget_locks
from .lock import lock as lock
from .manifest import FORMAT as FORMAT
from .manifest import MANIFEST as MANIFEST
from .manifest import NewerFormatError as NewerFormatError
from .manifest import new_manifest as new_manifest
from .paths import check_name as check_name
from .paths import inside as inside
from .paths import read_file as read_file
from .paths import slug as slug
from .strict_json import MAX_BYTES as MAX_BYTES
from .strict_json import dump_json as dump_json
from .strict_json import parse_json as parse_json
from .tensor_files import PICKLES as PICKLES
from .tensor_files import load_tensors as load_tensors
from .tensor_files import refuse_pickle as refuse_pickle
from .tensor_files import tensor_bytes as tensor_bytes

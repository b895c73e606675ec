"""`fedge import`: a user's pictures, tables, arrays, generator or hub set, once, into a data folder."""

from fedge.data.own.importing.arrays import import_arrays
from fedge.data.own.importing.hub import import_hub
from fedge.data.own.importing.images import import_images
from fedge.data.own.importing.program import import_program
from fedge.data.own.importing.table import import_table

__all__ = ["import_arrays", "import_hub", "import_images", "import_program", "import_table"]

"""What the role puts beside Celery, with the application's versions of its libraries."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "roles/worker/files/include"))

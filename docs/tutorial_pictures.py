"""Makes the pictures of tutorial.md, by running its code: python docs/tutorial_pictures.py

A few minutes on two CPU cores. They are written to docs/tutorial/.
"""

import os
import re
from pathlib import Path

DOCS = Path(__file__).parent

if __name__ == "__main__":
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", (DOCS / "tutorial.md").read_text(), re.M | re.S))
    (DOCS / "tutorial").mkdir(exist_ok=True)
    os.chdir(DOCS / "tutorial")
    exec(compile(code, "tutorial.md", "exec"), {"__name__": "tutorial"})

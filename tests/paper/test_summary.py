import re
import urllib.parse

from ddpm_jax.configs import digits
from ddpm_jax.paper import summary
from ddpm_jax.runs import workdir


def test_pictures_are_linked_from_where_the_report_lies(tmp_path, monkeypatch):
    folder = tmp_path / "my runs" / "digits (1)"
    workdir.write_config(folder, digits.get_config())
    (folder / "tables").mkdir()
    (folder / "tables" / "rate_distortion_step9.png").touch()
    monkeypatch.chdir(tmp_path)
    text = summary.write([folder], (tmp_path / "report").relative_to(tmp_path))
    (link,) = re.findall(r"!\[rate_distortion_step9\]\((\S+)\)\n", text)
    assert link.startswith("../my%20runs/")
    assert (tmp_path / "report" / urllib.parse.unquote(link)).is_file()

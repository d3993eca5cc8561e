"""Where files of the user lie, and how they are written."""

from platformdirs import user_cache_path

from ggufbench.paths import cache_folder


def test_the_cache_folder_is_the_one_given_or_the_platform_s(tmp_path):
    assert cache_folder({"GGUFBENCH_CACHE": str(tmp_path)}) == tmp_path
    assert cache_folder({}) == user_cache_path("ggufbench", appauthor=False)

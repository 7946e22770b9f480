"""What the messages of errors say."""

from equibit.errors import unknown


def test_a_short_table_is_listed_whole():
    message = str(unknown("thing", "nam2", ["name2", "name1"]))
    assert message == "unknown thing 'nam2'. Did you mean 'name2'? Known: name1, name2."


def test_of_a_long_table_the_nearest_are_named():
    message = str(unknown("thing", "name12x", [f"name{i}" for i in range(100)]))
    assert message.startswith("unknown thing 'name12x'. Did you mean 'name12'? Nearest of 100: name12, ")
    assert message.count(",") == 4

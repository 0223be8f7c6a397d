"""What the test set of MPI-INF-3DHP consists of, for the converter and the reader of it."""

TEST_SEQUENCES = ("TS1", "TS2", "TS3", "TS4", "TS5", "TS6")
# the groups of its activity annotation, from 1; 0 is none
ACTIVITIES = (
    *("", "Standing/Walking", "Exercise", "Sitting", "Crouch/Reach"),
    *("On the floor", "Sports", "Miscellaneous"),
)

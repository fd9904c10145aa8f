//! What a test guest's init says on its report port, as types shared with the tests.

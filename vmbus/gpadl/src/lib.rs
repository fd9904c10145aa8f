//! GPADLs: page lists received once, validated once, merged into runs, handed out as counted views.

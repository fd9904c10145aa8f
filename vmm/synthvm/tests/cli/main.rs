//! The program as its user meets it: started as a process, judged by its exit status and its words.

mod config;
mod control;
mod doctor;
mod documentation;
mod files;
mod image;
mod support;
mod usage;

//! Files and --print-config.

use crate::support::Scratch;

#[test]
fn test_print_config_fed_back_prints_the_same() {
    let scratch = Scratch::new();
    let flags = [
        "run",
        "--kernel",
        "bzImage",
        "--cmdline",
        "-- console=ttyS0 \"quoted\" back\\slash",
        "--memory",
        "512M",
        "--hugepages",
        "--cpus",
        "4",
        "--disk",
        "a,,b.img",
        "--disk",
        "path=c.img,readonly=on,controller=1,serial=X 1",
        "--disk",
        "ram:512M",
        "--disk",
        "null:1T,readonly",
        "--serial",
        "file=con,sole.log",
        "--hyperv",
        "windows,stimer=off",
        "--on-reset",
        "exit",
        "--control",
        "sock",
        "--print-config",
    ];
    let first = scratch.accepts(&flags);
    scratch.write("vm.toml", &first);
    assert_eq!(scratch.accepts(&["run", "vm.toml", "--print-config"]), first);
    assert!(
        first.contains("a,b.img")
            && first.contains("ram = \"512M\"")
            && first.contains("null = \"1T\"")
            && first.contains("readonly = true")
            && first.contains("hugepages = true")
    );
}

#[test]
fn test_print_config_shows_flags_over_file_over_defaults() {
    let scratch = Scratch::new();
    scratch.write("vm.toml", "kernel = \"k\"\nmemory = \"2G\"\ncpus = 2\n");
    let printed = scratch.accepts(&["run", "vm.toml", "--cpus", "3", "--print-config"]);
    for part in ["cpus = 3", "size = \"2G\"", "serial = \"stdio\""] {
        assert!(printed.contains(part), "{part} is not in:\n{printed}");
    }
}

#[test]
fn test_file_paths_are_relative_to_the_file() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path().join("vms")).unwrap();
    scratch.write("vms/vm.toml", "kernel = \"k\"\ninitrd = \"/abs/i\"\n");
    let printed = scratch.accepts(&["run", "vms/vm.toml", "--print-config"]);
    let kernel = scratch.path().join("vms/k");
    assert!(printed.contains(&format!("kernel = \"{}\"", kernel.display())), "{printed}");
    assert!(printed.contains("initrd = \"/abs/i\""), "{printed}");
}

#[test]
fn test_file_mistake_names_file_line_and_key() {
    let scratch = Scratch::new();
    scratch.write("vm.toml", "kernel = \"k\"\n\n[[disk]]\npath = \"a\"\nreadnly = true\n");
    let parts = ["vm.toml:5: disk.readnly", "did you mean `readonly`?", "block-size"];
    scratch.refuses(&["run", "vm.toml"], 2, &parts);
    scratch.write("vm.toml", "kernel = \"k\"\ncpus = 2\ncpus = 3\n");
    scratch.refuses(&["run", "vm.toml"], 2, &["vm.toml:3", "duplicate key"]);
    scratch.write("vm.toml", "kernel = \"k\ncpus = 2\n");
    scratch.refuses(&["run", "vm.toml"], 2, &["vm.toml:1"]);
    scratch.write("vm.toml", "kernel = \"k\"\nmemory = \"1Q\"\n");
    scratch.refuses(&["run", "vm.toml"], 2, &["vm.toml:2: memory", "512M"]);
}

#[test]
fn test_file_that_cannot_be_read_is_named() {
    let scratch = Scratch::new();
    scratch.refuses(&["run", "none.toml"], 2, &["none.toml", "No such file"]);
    scratch.refuses(&["run", "."], 2, &["cannot read"]);
    std::fs::write(scratch.path().join("binary.toml"), [0xFF, 0xFE, 0]).unwrap();
    scratch.refuses(&["run", "binary.toml"], 2, &["binary.toml", "not UTF-8"]);
    scratch.file("huge.toml", (1 << 20) + 1);
    scratch.refuses(&["run", "huge.toml"], 2, &["huge.toml", "longer than"]);
}

#[test]
fn test_run_without_kernel_says_how_to_give_one() {
    Scratch::new().refuses(&["run"], 2, &["--kernel FILE", "`kernel = "]);
}

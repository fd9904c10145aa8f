//! `synthvm image`: files made, converted, described and checked by the program.

use crate::support::Scratch;

#[test]
fn test_image_of_each_format_is_made_described_converted_and_sound() {
    let scratch = Scratch::new();
    for (name, format) in
        [("a.vhdx", "vhdx"), ("a.vhd", "vhd"), ("a.qcow2", "qcow2"), ("a.img", "raw")]
    {
        let made = scratch.accepts(&["image", "create", name, "--size", "64M"]);
        assert_eq!(made, format!("{name}: a {format} image of 64M\n"));
        let info = scratch.accepts(&["image", "info", name, "--json"]);
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        assert_eq!((&info["format"], &info["virtual_size"]), (&format.into(), &(64 << 20).into()));
        assert!(scratch.accepts(&["image", "check", name]).contains("sound"), "{name}");
        let copy = format!("b-{name}");
        let told = scratch.accepts(&["image", "convert", name, &copy]);
        assert!(
            told.starts_with(&format!("{copy}: a {format} image of 64.00 MiB, 0 B of it data")),
            "{told}"
        );
    }
}

#[test]
fn test_image_converted_keeps_its_content_through_every_format() {
    let scratch = Scratch::new();
    let mut content = vec![0; 8 << 20];
    for (at, byte) in content.iter_mut().enumerate().filter(|(at, _)| at % (1 << 20) < 70_000) {
        *byte = ((at * 31) >> 3) as u8;
    }
    std::fs::write(scratch.path().join("0.img"), &content).unwrap();
    for step in
        [["0.img", "1.vhdx"], ["1.vhdx", "2.qcow2"], ["2.qcow2", "3.vhd"], ["3.vhd", "4.img"]]
    {
        scratch.accepts(&["image", "convert", step[0], step[1]]);
    }
    assert!(std::fs::read(scratch.path().join("4.img")).unwrap() == content);
}

#[test]
fn test_image_command_that_cannot_be_done_names_what_is_wrong_and_leaves_files_alone() {
    let scratch = Scratch::new();
    scratch.file("there.img", 4096);
    scratch.refuses(&["image", "create", "there.img", "--size", "1M"], 4, &["there.img", "exists"]);
    scratch.refuses(&["image", "create", "disk", "--size", "1M"], 2, &["--format"]);
    scratch.refuses(&["image", "create", "a.vhdx"], 2, &["--size"]);
    scratch.refuses(&["image", "create", "a.vhdx", "--size", "1000"], 2, &["--size", "512"]);
    scratch.refuses(
        &["image", "create", "a.img", "--size", "1M", "--format", "vmdk"],
        2,
        &["vmdk", "qcow2"],
    );
    scratch.refuses(&["image", "info", "none.img"], 4, &["none.img"]);
    scratch.refuses(&["image", "convert", "there.img", "there.img"], 4, &["there.img"]);
    scratch.refuses(&["image"], 2, &["create, convert, info, check"]);
    scratch.write("torn.vhdx", "vhdxfile and nothing more");
    scratch.refuses(&["image", "info", "torn.vhdx"], 4, &["torn.vhdx"]);
}

//! Real clients: gvnccapture of gtk-vnc, whose path is in `SYNTHVM_GVNCCAPTURE` (`cargo xtask test`
//! sets it), and vncdo of vncdotool (`pip install vncdotool`), whose path is in `SYNTHVM_VNCDO`.

mod common;

use std::io::BufReader;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::guest::Guest;
use synthvm_display::{DisplayOptions, DisplayServer, Passwords, Security};

const PASSWORD: &str = "open sea";

/// Starts a server on a port.
fn serve(guest: &Guest, security: Security) -> (DisplayServer, u16) {
    let server = guest.server(DisplayOptions::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    server.listen(listener, security);
    (server, port)
}

/// Returns the program that a variable names.
fn program(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        eprintln!("left out: {variable} names no program");
    }
    path
}

/// Returns the path of a file that is removed on drop.
struct Picture(PathBuf);

impl Picture {
    fn new(name: &str) -> Self {
        let name = format!("synthvm-{name}-{}.png", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    /// Compares the picture with the guest's.
    fn assert_shows(&self, guest: &Guest) {
        let (width, height, pixels) = read(&self.0);
        assert_eq!((width, height), (guest.width, guest.height));
        let differs = pixels.iter().zip(&guest.pixels).position(|(one, two)| one != two);
        assert_eq!(differs, None, "the first pixel that differs");
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn read(path: &Path) -> (usize, usize, Vec<u32>) {
    let file = BufReader::new(std::fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    let size = info.color_type.samples();
    let pixels =
        bytes.chunks(size).map(|pixel| u32::from_be_bytes([0, pixel[0], pixel[1], pixel[2]]));
    (info.width as usize, info.height as usize, pixels.collect())
}

// It reads a password from a terminal only: the tests of real guests have one.
#[test]
fn test_gvnccapture_captures_the_screen() {
    let Some(program) = program("SYNTHVM_GVNCCAPTURE") else { return };
    let mut guest = Guest::new(801, 603);
    for _ in 0..50 {
        guest.draw();
    }
    let (_server, port) = serve(&guest, Security::none());
    let picture = Picture::new("gvnccapture");
    let client = Command::new(&program)
        .arg(format!("127.0.0.1:{}", i32::from(port) - 5900))
        .arg(&picture.0)
        .status()
        .unwrap();
    assert!(client.success());
    picture.assert_shows(&guest);
}

#[test]
fn test_vncdo_logs_in_types_points_and_captures_the_screen() {
    let Some(program) = program("SYNTHVM_VNCDO") else { return };
    let mut guest = Guest::new(640, 480);
    for _ in 0..20 {
        guest.draw();
    }
    let passwords = Passwords::new(PASSWORD, None).unwrap();
    let (_server, port) = serve(&guest, Security::passwords(passwords));
    let picture = Picture::new("vncdo");
    let mut client = Command::new(program)
        .args(["-s", &format!("127.0.0.1::{port}"), "-p", PASSWORD])
        .args(["type", "aB", "key", "ctrl-alt-del", "move", "320", "240", "click", "1", "capture"])
        .arg(&picture.0)
        .spawn()
        .unwrap();
    const RELEASE: u32 = 2;
    const E0: u32 = 4;
    let keys = guest.keys(12);
    let expected = [
        [0x1E, 0],
        [0x1E, RELEASE],
        [0x2A, 0],
        [0x30, 0],
        [0x2A, RELEASE],
        [0x30, RELEASE],
        [0x1D, 0],
        [0x38, 0],
        [0x53, E0],
    ];
    assert_eq!(keys[..9], expected);
    let reports = guest.reports_until((1, 16409, 16418, 0));
    assert!(reports.iter().all(|(_, x, y, _)| (*x, *y) == (16409, 16418)), "{reports:?}");
    assert!(client.wait().unwrap().success());
    picture.assert_shows(&guest);
}

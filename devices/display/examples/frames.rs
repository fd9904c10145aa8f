//! Draws an animation and shows it to one viewer, frame by frame, so that a profiler can count the
//! instructions of the server's thread:
//!
//! ```text
//! cargo build --release -p synthvm-display --example frames
//! valgrind --tool=callgrind --separate-threads=yes target/release/examples/frames scroll zrle 50
//! ```
//!
//! Arguments: `scroll`, `window` or `key`; `raw`, `zrle` or `tight`; the number of frames; and
//! `copy`, if the viewer announces CopyRect.

#[path = "../tests/common/mod.rs"]
mod common;

use common::client::{COPY_RECT, Client, RAW, TIGHT, ZRLE};
use common::guest::Guest;
use guest_report::animation::{Animation, Scene};
use synthvm_display::DisplayOptions;

const SIZE: (usize, usize) = (1024, 768);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    let scene = match word(0) {
        "window" => Scene::Window,
        "key" => Scene::Key,
        _ => Scene::Scroll,
    };
    let encoding = match word(1) {
        "raw" => RAW,
        "tight" => TIGHT,
        _ => ZRLE,
    };
    let frames: u16 = word(2).parse().unwrap_or(10);
    let mut animation = Animation::new(scene, SIZE.0, SIZE.1);
    let mut guest = Guest::new(SIZE.0, SIZE.1);
    let show = |guest: &mut Guest, animation: &Animation, columns: (usize, usize), rows| {
        let (top, bottom): (usize, usize) = rows;
        let width = columns.1 - columns.0;
        guest.fill(columns.0, top, width, bottom - top, |_, column, row| {
            animation.pixels[row * SIZE.0 + column]
        });
        guest.report(columns.0, top, width, bottom - top);
    };
    show(&mut guest, &animation, (0, SIZE.0), (0, SIZE.1));
    let server = guest.server(DisplayOptions::default());
    let mut client = Client::view(&server);
    let copies = if word(3) == "copy" { &[COPY_RECT][..] } else { &[] };
    client.set_encodings(&[&[encoding], copies].concat());
    client.await_picture(SIZE.0, SIZE.1, &guest.pixels);
    let before = server.report();
    for number in 1..=frames {
        let area = animation.next_frame(number);
        show(&mut guest, &animation, area.columns, area.rows);
        client.await_picture(SIZE.0, SIZE.1, &guest.pixels);
    }
    let after = server.report();
    let each = |after: u64, before: u64| (after - before) as f64 / f64::from(frames);
    println!(
        "{words:?}: a frame has {:.0} bytes, {:.2} rectangles, {:.2} updates",
        each(after.bytes, before.bytes),
        each(after.rectangles, before.rectangles),
        each(after.updates, before.updates),
    );
}

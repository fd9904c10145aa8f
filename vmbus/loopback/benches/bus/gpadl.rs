//! GPADLs through the whole server: messages in, CREATED or TORNDOWN out, with every page number
//! checked against the memory map.

use crate::clock::best_undone;
use crate::counting::counted;
use crate::limits;
use crate::number::Number;
use crate::server::{BODY_WORDS, Order, Server, create_messages, pages, ram};

pub(crate) fn measure(numbers: &mut Vec<Number>) {
    let orders =
        [(Order::Scattered, "scattered"), (Order::Half, "half"), (Order::Contiguous, "contiguous")];
    for count in [1, 16, 512, 4096, 8190] {
        for (order, word) in orders {
            let name = format!("gpadl_create_{count}_{word}");
            let target = (count == 4096).then_some(2.5);
            numbers.push(create(&name, &pages(count, order, 2), 2).target(target));
        }
    }
    for regions in [1, 16] {
        let name = format!("gpadl_create_4096_scattered_{regions}_regions");
        numbers.push(create(&name, &pages(4096, Order::Scattered, regions), regions).target(2.5));
    }
    numbers.push(message());
    numbers.push(teardown());
    numbers.push(list_bytes());
}

fn create(name: &str, list: &[u64], regions: u64) -> Number {
    let per_page = list.len() as f64;
    Number::new(
        format!("{name}_ns_per_page"),
        "ns/page",
        create_ns(list, regions) / per_page,
        limits::list_copy(list) / per_page,
    )
}

fn create_ns(list: &[u64], regions: u64) -> f64 {
    let mut server = Server::new(ram(regions));
    let messages = create_messages(list);
    best_undone(&mut server, |server| server.create(&messages), Server::teardown)
}

/// Measures one message. The longest list has 293 messages, all but the first and last with full
/// bodies. Its pages are contiguous, so that the list itself costs least.
fn message() -> Number {
    let list = pages(8190, Order::Contiguous, 2);
    let per_message = create_ns(&list, 2) / create_messages(&list).len() as f64;
    Number::new("gpadl_message_ns", "ns", per_message, limits::list_copy(&list[..BODY_WORDS]))
        .target(80.0)
}

fn teardown() -> Number {
    let mut server = Server::new(ram(2));
    let messages = create_messages(&pages(4096, Order::Scattered, 2));
    server.create(&messages);
    let value = best_undone(&mut server, Server::teardown, |server| server.create(&messages));
    // The teardown frees the lists, which were allocated before.
    Number::new("gpadl_teardown_ns", "ns", value, limits::heap_block(4096 * 8)).target(300.0)
}

/// Measures the heap bytes that one accepted list leaves in the whole server. One word for each
/// page is the minimum.
fn list_bytes() -> Number {
    let mut server = Server::new(ram(2));
    let messages = create_messages(&pages(4096, Order::Scattered, 2));
    // After this list, the server's own tables and buffers have their final sizes.
    server.create(&messages);
    server.teardown();
    let counted = counted(|| server.create(&messages));
    Number::new("list_bytes_per_page", "bytes", counted.bytes as f64 / 4096.0, 8.0).target(24.0)
}

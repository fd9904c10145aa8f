//! Wraps a flat program into a firmware image: `wrap PROGRAM IMAGE`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [program, image] = &arguments[..] else {
        eprintln!("usage: wrap PROGRAM IMAGE");
        return ExitCode::from(2);
    };
    let wrapped = std::fs::read(program).map_err(|error| error.to_string()).and_then(|program| {
        synthvm_msvm::wrap_flat(&program).ok_or_else(|| "the program is too large".to_owned())
    });
    let written =
        wrapped.and_then(|bytes| std::fs::write(image, bytes).map_err(|error| error.to_string()));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wrap: {error}");
            ExitCode::FAILURE
        }
    }
}

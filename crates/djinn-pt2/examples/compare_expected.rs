//! Imports models, evaluates them on their recorded inputs and compares the outputs: folders with the program's
//! file (`model.pt2` unless `--file` names another), `inputs.npz` and `expected.npz`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;

fn main() {
    let mut file = "model.pt2".to_string();
    let (mut good, mut bad) = (0, 0);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--file" {
            file = args.next().unwrap_or_default();
            continue;
        }
        match support::check_model(Path::new(&arg), &file) {
            Ok(n) => {
                println!("ok   {arg}: {n} tensors agree");
                good += 1;
            }
            Err(e) => {
                println!("BAD  {arg}: {e}");
                bad += 1;
            }
        }
    }
    println!("{good} agree, {bad} do not");
}

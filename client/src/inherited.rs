//! Descriptors that somebody else opened, and that are known by their number only.

/// Where numbers end when they cannot be listed.
const MANY: u32 = 1024;

/// Closes everything from 3 on but this one. Only before anything of ours is open.
pub fn close_all_but(keep: Option<u32>) {
    let listed = std::fs::read_dir("/proc/self/fd").map(|entries| {
        let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.collect::<Vec<u32>>()
    });
    // The listing is closed by now, and its number is free again.
    for number in listed.unwrap_or_else(|_| (3..MANY).collect()) {
        if number > 2 && keep != Some(number) {
            close(number);
        }
    }
}

/// Closes one that is not ours.
pub fn close(number: u32) {
    if let Ok(number) = i32::try_from(number) {
        let _ = nix::unistd::close(number);
    }
}

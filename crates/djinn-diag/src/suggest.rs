//! Names near to a misspelled one, for the help of diagnostics.

/// Words longer than this are not compared.
const MAX_LENGTH: usize = 64;

/// The candidates nearest to `word`, best first, at most three; empty if none is near.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    if word.len() > MAX_LENGTH {
        return Vec::new();
    }
    let limit = 1 + word.chars().count() / 3;
    let mut near: Vec<(usize, &str)> = candidates
        .into_iter()
        .filter(|c| c.len() <= MAX_LENGTH)
        .map(|c| (distance(word, c), c))
        .filter(|(d, c)| *d <= limit || (word.len() >= 3 && c.contains(word)))
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().take(3).map(|(_, c)| c).collect()
}

/// `did you mean 'a' or 'b'?`, or nothing if no candidate is near.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let near: Vec<String> = nearest(word, candidates).iter().map(|c| format!("'{c}'")).collect();
    (!near.is_empty()).then(|| format!("did you mean {}?", near.join(" or ")))
}

/// Insertions, removals and changes of a letter between the two.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found() {
        assert_eq!(nearest("matmull", ["matmul", "add", "mul"]), ["matmul"]);
        assert!(nearest("zzz", ["matmul", "add"]).is_empty());
        assert_eq!(did_you_mean("ad", ["add"]).as_deref(), Some("did you mean 'add'?"));
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}

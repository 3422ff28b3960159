//! Which of several images of one place is meant.

use crate::{OciError, Reference};

/// An image among several.
pub(crate) struct OfSeveral<T> {
    /// How it may be called; a place may leave it without a name.
    pub(crate) names: Vec<String>,
    /// What it is.
    pub(crate) image: T,
}

/// Those that are meant by `name`; without one, all of them if they have the same names.
///
/// # Errors
///
/// [`OciError::NotFound`] and [`OciError::Invalid`], which list what there is.
pub(crate) fn choose_name<T>(
    images: Vec<OfSeveral<T>>,
    name: Option<&str>,
    place: &str,
) -> Result<Vec<T>, OciError> {
    let Some(name) = name else {
        let same = |pair: &[OfSeveral<T>]| pair[0].names == pair[1].names;
        if images.is_empty() {
            return Err(OciError::invalid(place, "it contains no image"));
        }
        if !images.windows(2).all(same) {
            let reason = format!("it contains several images: name one of {}", list(&images));
            return Err(OciError::invalid(place, reason));
        }
        return Ok(images.into_iter().map(|one| one.image).collect());
    };
    let there = list(&images);
    let is_meant = |one: &OfSeveral<T>| one.names.iter().any(|has| is_same_name(has, name));
    let meant: Vec<T> = images
        .into_iter()
        .filter(is_meant)
        .map(|one| one.image)
        .collect();
    if meant.is_empty() {
        return Err(OciError::NotFound {
            what: format!("image {name}"),
            place: format!("{place}, which contains {there}"),
        });
    }
    Ok(meant)
}

/// Whether both name the same image: `alpine` and `docker.io/library/alpine:latest` do.
fn is_same_name(one: &str, other: &str) -> bool {
    let full = |name: &str| name.parse::<Reference>().ok();
    one == other || full(one).is_some_and(|one| full(other) == Some(one))
}

/// The names for a message: few enough to be read.
fn list<T>(images: &[OfSeveral<T>]) -> String {
    const MANY: usize = 32;
    let mut names: Vec<String> = images
        .iter()
        .map(|one| match &one.names[..] {
            [] => "one without a name".to_owned(),
            [name, ..] => name.chars().take(300).collect(),
        })
        .collect();
    names.dedup();
    let more = names.len().saturating_sub(MANY);
    names.truncate(MANY);
    match (names.len(), more) {
        (0, _) => "none".to_owned(),
        (_, 0) => names.join(", "),
        _ => format!("{} and {more} more", names.join(", ")),
    }
}

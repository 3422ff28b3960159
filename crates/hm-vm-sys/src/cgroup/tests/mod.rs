//! Detection and settings on made-up machines; groups on this one, where it lets us.

mod dbus;
mod fake;
mod real;

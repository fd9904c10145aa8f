//! A table of items with small numbers.

/// A table of numbered items. The number of a removed item is used again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<u64>,
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }

    /// Returns the number that the next item will have.
    pub(super) fn next(&self) -> u64 {
        self.free.last().copied().unwrap_or(self.items.len() as u64)
    }

    /// Adds `item`. Returns its number.
    pub(super) fn insert(&mut self, item: T) -> u64 {
        if let Some(number) = self.free.pop() {
            self.items[number as usize] = Some(item);
            return number;
        }
        self.items.push(Some(item));
        (self.items.len() - 1) as u64
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        self.items.get_mut(number as usize)?.as_mut()
    }

    /// Removes the item and returns it.
    pub(super) fn take(&mut self, number: u64) -> Option<T> {
        let item = self.items.get_mut(number as usize)?.take()?;
        self.free.push(number);
        Some(item)
    }

    /// Drops the item.
    pub(super) fn remove(&mut self, number: u64) {
        if let Some(item) = self.items.get_mut(number as usize)
            && item.is_some()
        {
            *item = None;
            self.free.push(number);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.len() == self.free.len()
    }
}

package bounded

import (
	"archive/tar"
	"fmt"
	"io"
)

const (
	// maxEntries is how many files something may unpack to, each of which takes an inode
	// of the disk and some memory. The largest images have a few million.
	maxEntries = 10_000_000
	// maxTexts is how many bytes their names and attributes may have, part of which is
	// held in memory.
	maxTexts = 1 << 30
)

// A Budget bounds what one layer, archive or repository unpacks to, so that a few bytes
// can't fill a disk or the memory. nil has no bounds. It isn't safe for concurrent use.
type Budget struct {
	limit                int64
	size, entries, texts int64
	maxEntries, maxTexts int64
}

// NewBudget returns a budget of limit bytes, holes of sparse files counted, and of ten
// million entries; nil if limit is 0.
func NewBudget(limit int64) *Budget {
	if limit <= 0 {
		return nil
	}
	return &Budget{limit: limit, maxEntries: maxEntries, maxTexts: maxTexts}
}

// A BudgetError is that something unpacks to more than may be.
type BudgetError struct{ what string }

// Error tells the bound, and the flag that moves it.
func (e *BudgetError) Error() string { return "it has more than " + e.what }

// Entry takes a file of content bytes, whose names and attributes have texts bytes, out of
// the budget before it is unpacked.
func (b *Budget) Entry(content int64, texts int) error {
	if b == nil {
		return nil
	}
	b.entries++
	b.texts += int64(texts)
	switch {
	case content > b.limit-b.size:
		return b.tooLarge()
	case b.entries > b.maxEntries:
		return &BudgetError{fmt.Sprintf("the %d files that are allowed without --max-unpacked-size=0", b.maxEntries)}
	case b.texts > b.maxTexts:
		return &BudgetError{fmt.Sprintf("the %s of names and attributes that are allowed without --max-unpacked-size=0", size(b.maxTexts))}
	}
	b.size += max(0, content)
	return nil
}

// TarEntry is Entry of an entry of a tar.
func (b *Budget) TarEntry(h *tar.Header) error {
	texts := len(h.Name) + len(h.Linkname)
	for name, value := range h.PAXRecords {
		texts += len(name) + len(value)
	}
	return b.Entry(h.Size, texts)
}

func (b *Budget) tooLarge() error {
	return &BudgetError{"the " + size(b.limit) + " that --max-unpacked-size allows"}
}

// Bytes takes n bytes out of the budget that belong to no file.
func (b *Budget) Bytes(n int) error {
	if b == nil {
		return nil
	}
	if b.size += int64(n); b.size > b.limit {
		return b.tooLarge()
	}
	return nil
}

// Reader returns a reader of r, an uncompressed archive, that fails with a [BudgetError]
// when that has more bytes than the budget, whatever its entries say.
func (b *Budget) Reader(r io.Reader) io.Reader {
	if b == nil {
		return r
	}
	return &budgetReader{b: b, r: r}
}

type budgetReader struct {
	b *Budget
	r io.Reader
	n int64
}

func (r *budgetReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if r.n += int64(n); r.n > r.b.limit {
		return 0, r.b.tooLarge()
	}
	return n, err
}

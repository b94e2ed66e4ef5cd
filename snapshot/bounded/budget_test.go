package bounded_test

import (
	"archive/tar"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/bobbuild/bob/snapshot/bounded"
)

func TestBudget(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		spend func(*bounded.Budget) error
		want  string // part of the error
	}{
		{"all of it", func(b *bounded.Budget) error { return errors.Join(b.Entry(60, 9), b.Entry(40, 9), b.Entry(0, 9)) }, ""},
		{"one byte more", func(b *bounded.Budget) error { return errors.Join(b.Entry(60, 9), b.Entry(41, 9)) }, "more than the 100 bytes that --max-unpacked-size allows"},
		{"the largest file", func(b *bounded.Budget) error { return b.Entry(1<<63-1, 0) }, "more than the 100 bytes"},
		{"not known", func(b *bounded.Budget) error { return b.Entry(-1, 0) }, ""},
		{"without files", func(b *bounded.Budget) error { return errors.Join(b.Bytes(100), b.Bytes(1)) }, "more than the 100 bytes"},
		{"stream", func(b *bounded.Budget) error {
			_, err := io.Copy(io.Discard, b.Reader(strings.NewReader(strings.Repeat("x", 101))))
			return err
		}, "more than the 100 bytes"},
		{"whole stream", func(b *bounded.Budget) error {
			_, err := io.Copy(io.Discard, b.Reader(strings.NewReader(strings.Repeat("x", 100))))
			return err
		}, ""},
		{"files without content", func(b *bounded.Budget) error {
			for range 10_000_000 {
				if err := b.Entry(0, 1); err != nil {
					return err
				}
			}
			return b.Entry(0, 1)
		}, "more than the 10000000 files that are allowed without --max-unpacked-size=0"},
		{"names", func(b *bounded.Budget) error {
			long := &tar.Header{Name: strings.Repeat("x", 1<<20), PAXRecords: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("x", 1<<20)}}
			for range 511 {
				if err := b.TarEntry(long); err != nil {
					return err
				}
			}
			return b.TarEntry(&tar.Header{Linkname: strings.Repeat("x", 2<<20)})
		}, "more than the 1 GiB of names and attributes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := tt.spend(bounded.NewBudget(100))
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err := tt.spend(bounded.NewBudget(0)); err != nil {
				t.Errorf("without bounds: %v", err)
			}
		})
	}
}

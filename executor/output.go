package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/snapshot"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// An OutputType is a form in which a result leaves the build.
type OutputType string

// The forms of output, named as in docker build.
const (
	OutputOCI    OutputType = "oci"    // an OCI image layout, as a tar or a directory
	OutputDocker OutputType = "docker" // a tar that docker load reads
	OutputTar    OutputType = "tar"    // the files of the image as a tar
	OutputLocal  OutputType = "local"  // the files of the image in a directory
)

// An Output is one place that the result is written to. A file appears whole or
// not at all; a directory is created if it isn't there and else written into.
type Output struct {
	Type OutputType
	// Dest is the file or directory. It is not used if Writer is set.
	Dest string
	// Writer takes what else would be the file Dest. The caller closes it.
	Writer io.Writer
	// Dir has OutputOCI write a directory in place of a tar.
	Dir bool
	// Names are the names that the image has inside.
	Names []string
	// Format is how an image is written.
	Format Format
}

// isImage reports whether the output holds an image and not just its files.
func (o Output) isImage() bool { return o.Type == OutputOCI || o.Type == OutputDocker }

// check reports early what would keep a file from being written at the end.
func (o Output) check() error {
	if o.Writer != nil || o.Dir || o.Type == OutputLocal {
		return nil
	}
	dir := filepath.Dir(o.Dest)
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return fmt.Errorf("output %s: write to directory %s: %w", o.Dest, dir, err)
	}
	return nil
}

// write writes the output o of the states of all platforms, whose finished image
// the products are: one for each format of the build.
func (b *build) write(ctx context.Context, o *Output, states []*state, products []*product) error {
	if !o.isImage() {
		return b.writeFiles(ctx, o, states)
	}
	return b.writeImage(ctx, o, states, products[slices.Index(b.exports.formats, &o.Format)])
}

// writeImage writes the finished image p, made of the layers of the states.
func (b *build) writeImage(ctx context.Context, o *Output, states []*state, p *product) (err error) {
	v := b.progress.Start("exporting to " + string(o.Type) + " image format")
	defer func() { v.Done(err) }()
	a := archive.Contents{
		Refs:        o.Names,
		Index:       p.index,
		IndexType:   p.desc.MediaType,
		Annotations: p.desc.Annotations,
		Open: func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
			return b.openIn(ctx, states, &o.Format, d)
		},
	}
	for _, img := range p.images {
		a.Images = append(a.Images, archive.Image{
			Manifest: img.manifest, MediaType: img.desc.MediaType, Config: img.config, Layers: img.layers,
		})
	}
	switch {
	case o.Type == OutputDocker:
		return b.put(o, func(w io.Writer) error { return archive.WriteDocker(ctx, w, a) })
	case o.Dir:
		return archive.WriteOCIDir(ctx, o.Dest, a)
	default:
		return b.put(o, func(w io.Writer) error { return archive.WriteOCI(ctx, w, a) })
	}
}

// openIn opens the blob d of the states' layers in format f.
func (b *build) openIn(ctx context.Context, states []*state, f *Format, d ocispec.Descriptor) (io.ReadCloser, error) {
	for _, st := range states {
		for _, l := range st.layers {
			if bl := l.in(f); bl.desc.Digest == d.Digest {
				return b.open(ctx, bl)
			}
		}
	}
	return nil, fmt.Errorf("no layer %s", d.Digest)
}

// writeFiles writes the files of the states. With several platforms each has a
// directory of its own, called as BuildKit calls it.
func (b *build) writeFiles(ctx context.Context, o *Output, states []*state) (err error) {
	v := b.progress.Start("exporting to " + string(o.Type))
	defer func() { v.Done(err) }()
	var trees []snapshot.Tree
	for i, p := range b.platforms() {
		src, err := b.sources.View(ctx, states[i].rootfs.RootFS)
		if err != nil {
			return err
		}
		t := snapshot.Tree{Root: src.Root, Owners: b.Store.Owners()}
		if len(states) > 1 {
			t.Name = strings.ReplaceAll(platforms.FormatAll(p), "/", "_")
		}
		trees = append(trees, t)
	}
	files, err := snapshot.ArchiveTrees(ctx, trees, b.plan.Epoch)
	if err != nil {
		return err
	}
	defer files.Close()
	if o.Type == OutputTar {
		return b.put(o, func(w io.Writer) error {
			_, err := io.Copy(w, files)
			return err
		})
	}
	if err := os.MkdirAll(o.Dest, 0o755); err != nil { //nolint:gosec // the user's own directory, for the umask to narrow
		return err
	}
	var devices []string
	leaveOut := func(path string) { devices = append(devices, path) }
	if err := snapshot.Extract(ctx, o.Dest, ".", files, snapshot.ExtractOptions{NoChown: true, LeaveOut: leaveOut}); err != nil {
		return err
	}
	if len(devices) > 0 {
		b.progress.Warn(fmt.Sprintf("output %s lacks %s: only root can make them; type=tar has them", o.Dest, listDevices(devices)))
	}
	return nil
}

// listDevices names the first of the devices.
func listDevices(paths []string) string {
	const few = 5
	if n := len(paths) - few; n > 1 {
		return fmt.Sprintf("the devices %s and %d more", strings.Join(paths[:few], ", "), n)
	}
	return "the devices " + strings.Join(paths, ", ")
}

// put has f write the file of the output o, which appears when it is whole.
func (b *build) put(o *Output, f func(io.Writer) error) (err error) {
	if o.Writer != nil {
		b.written.Store(true)
		return f(o.Writer)
	}
	tmp, err := os.CreateTemp(filepath.Dir(o.Dest), "."+filepath.Base(o.Dest)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	if err := f(tmp); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := tmp.Chmod(0o644); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), o.Dest)
}

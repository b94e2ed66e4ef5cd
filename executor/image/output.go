package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/snapshot"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
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

// An Output is one place that the result is written to. A file appears complete or not
// at all. A directory is created if it doesn't exist, and is written into otherwise.
type Output struct {
	Type OutputType
	// Dest is the file or directory. It is not used if Writer is set.
	Dest string
	// Writer, if set, gets the content in place of the file Dest. The caller closes it.
	Writer io.Writer
	// Dir makes OutputOCI write a directory in place of a tar.
	Dir bool
	// Names are the names of the image inside the output.
	Names []string
	// Format is how an image is written.
	Format Format
}

// isImage reports whether the output holds an image and not just its files.
func (o *Output) isImage() bool { return o.Type == OutputOCI || o.Type == OutputDocker }

// check reports early what would keep a file from being written at the end.
func (o *Output) check() error {
	if o.Writer != nil || o.Dir || o.Type == OutputLocal {
		return nil
	}
	dir := filepath.Dir(o.Dest)
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return fmt.Errorf("output %s: write to directory %s: %w", o.Dest, dir, err)
	}
	return nil
}

// outputs write files.
type outputs struct {
	*Packer

	progress *event.Reporter
	written  atomic.Bool // to an [Output.Writer]
}

// write writes the output o of the contents, whose finished image in its format p is.
func (w *outputs) write(ctx context.Context, o *Output, contents []*Content, p *product) error {
	if o.isImage() {
		return w.image(ctx, o, contents, p)
	}
	return w.files(ctx, o, contents)
}

// image writes the finished image p, made of the contents.
func (w *outputs) image(ctx context.Context, o *Output, contents []*Content, p *product) (err error) {
	v := w.progress.Start("exporting to " + string(o.Type) + " image format")
	defer func() { v.Done(err) }()
	a := archive.Contents{
		Refs:        o.Names,
		IndexType:   p.top.MediaType,
		Annotations: p.top.Annotations,
	}
	if len(p.images) > 1 {
		a.Index = p.top.Body
	}
	blobs := make(map[digest.Digest]*Blob)
	for i, img := range p.images {
		a.Images = append(a.Images, archive.Image{
			Manifest: img.manifest.Body, MediaType: img.manifest.MediaType, Config: img.config.Body, Layers: img.layers,
		})
		for k, l := range img.layers {
			blobs[l.Digest] = contents[i].Layers[k].In(&o.Format)
		}
	}
	a.Open = func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		return w.Open(ctx, blobs[d.Digest])
	}
	switch {
	case o.Type == OutputDocker:
		return w.put(o, func(to io.Writer) error { return archive.WriteDocker(ctx, to, a) })
	case o.Dir:
		return archive.WriteOCIDir(ctx, o.Dest, a)
	default:
		return w.put(o, func(to io.Writer) error { return archive.WriteOCI(ctx, to, a) })
	}
}

// files writes the files of the contents. With several platforms each has a
// directory of its own, called as BuildKit calls it.
func (w *outputs) files(ctx context.Context, o *Output, contents []*Content) (err error) {
	v := w.progress.Start("exporting to " + string(o.Type))
	defer func() { v.Done(err) }()
	var trees []snapshot.Tree
	for _, c := range contents {
		root, err := c.Files(ctx)
		if err != nil {
			return err
		}
		t := snapshot.Tree{Root: root, Owners: w.store.Owners()}
		if len(contents) > 1 {
			t.Name = strings.ReplaceAll(platforms.FormatAll(c.Platform), "/", "_")
		}
		trees = append(trees, t)
	}
	files, err := snapshot.ArchiveTrees(ctx, trees, w.epoch)
	if err != nil {
		return err
	}
	defer files.Close()
	if o.Type == OutputTar {
		return w.put(o, func(to io.Writer) error {
			_, err := io.Copy(to, files)
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
		w.progress.Warn(fmt.Sprintf("output %s lacks %s: only root can make them; type=tar has them", o.Dest, listDevices(devices)))
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

// put makes f write the file of the output o. The file appears when it is complete.
func (w *outputs) put(o *Output, f func(io.Writer) error) (err error) {
	if o.Writer != nil {
		w.written.Store(true)
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

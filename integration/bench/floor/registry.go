package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A repository is one of a registry that speaks plain HTTP.
type repository struct{ host, name string }

// newRepository returns that of a reference without a tag.
func newRepository(ref string) *repository {
	host, name, _ := strings.Cut(ref, "/")
	return &repository{host, name}
}

// do does a request and returns the answer, which the caller closes.
func (r *repository) do(ctx context.Context, method, url string, body io.Reader, kind string) (*http.Response, error) {
	if strings.HasPrefix(url, "/") {
		url = "http://" + r.host + url
	}
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", ocispec.MediaTypeImageManifest)
	request.Header.Set("Content-Type", kind)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 300 {
		return nil, errors.Join(fmt.Errorf("%s %s: %s", method, url, response.Status), response.Body.Close())
	}
	return response, nil
}

// ask does a request whose answer has no body that matters.
func (r *repository) ask(ctx context.Context, method, url string, body io.Reader, kind string) (http.Header, error) {
	response, err := r.do(ctx, method, url, body, kind)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return response.Header, errors.Join(err, response.Body.Close())
}

// read gets a JSON document.
func (r *repository) read(ctx context.Context, url string, into any) error {
	response, err := r.do(ctx, http.MethodGet, url, nil, "")
	if err != nil {
		return err
	}
	return errors.Join(json.NewDecoder(response.Body).Decode(into), response.Body.Close())
}

func (r *repository) manifest(ctx context.Context) (*image, error) {
	i := &image{}
	return i, r.read(ctx, "/v2/"+r.name+"/manifests/latest", &i.Manifest)
}

// image reads manifest and config.
func (r *repository) image(ctx context.Context) (*image, error) {
	i, err := r.manifest(ctx)
	if err != nil {
		return nil, err
	}
	return i, r.read(ctx, "/v2/"+r.name+"/blobs/"+i.Config.Digest.String(), &i.config)
}

// pull unpacks all layers of an image at once, each into a directory of its own, and
// returns those as an overlay wants them. Whiteouts are ordinary files there.
func (r *repository) pull(ctx context.Context, i *image, dir string) (lower string, err error) {
	errs := make([]error, len(i.Layers))
	dirs := make([]string, len(i.Layers))
	var all sync.WaitGroup
	for n, l := range i.Layers {
		dirs[len(dirs)-1-n] = filepath.Join(dir, fmt.Sprint(n))
		all.Go(func() { errs[n] = r.pullLayer(ctx, l.Digest, filepath.Join(dir, fmt.Sprint(n))) })
	}
	all.Wait()
	for _, device := range devices {
		errs = append(errs, os.WriteFile(filepath.Join(dir, "0", "dev", device), nil, 0o644))
	}
	return strings.Join(dirs, ":"), errors.Join(errs...)
}

func (r *repository) pullLayer(ctx context.Context, blob digest.Digest, dir string) error {
	response, err := r.do(ctx, http.MethodGet, "/v2/"+r.name+"/blobs/"+blob.String(), nil, "")
	if err != nil {
		return err
	}
	return errors.Join(unpack(response.Body, dir), response.Body.Close())
}

// unpack unpacks the files, directories and links of a gzipped tar.
func unpack(body io.Reader, dir string) error {
	zr, err := pgzip.NewReader(bufio.NewReaderSize(body, block))
	if err != nil {
		return err
	}
	for archive := tar.NewReader(zr); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		path := filepath.Join(dir, header.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		switch header.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeReg:
			err = writeFile(path, archive, os.FileMode(header.Mode&0o777))
		case tar.TypeLink:
			err = os.Link(filepath.Join(dir, header.Linkname), path)
		case tar.TypeSymlink:
			err = os.Symlink(header.Linkname, path)
		}
		if err != nil {
			return err
		}
	}
}

func writeFile(path string, body io.Reader, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	return errors.Join(err, f.Close())
}

// mount has the registry share a blob of another repository.
func (r *repository) mount(ctx context.Context, blob digest.Digest, from *repository) error {
	_, err := r.ask(ctx, http.MethodPost, "/v2/"+r.name+"/blobs/uploads/?mount="+blob.String()+"&from="+url.QueryEscape(from.name), nil, "")
	return err
}

// pushLayer makes a layer of a directory and pushes it while it is made.
func (r *repository) pushLayer(ctx context.Context, dir string) (layer, error) {
	header, err := r.ask(ctx, http.MethodPost, "/v2/"+r.name+"/blobs/uploads/", nil, "")
	if err != nil {
		return layer{}, err
	}
	reader, writer := io.Pipe()
	var made layer
	go func() {
		var err error
		made, err = pack(writer, dir)
		writer.CloseWithError(err)
	}()
	if header, err = r.ask(ctx, http.MethodPatch, header.Get("Location"), reader, "application/octet-stream"); err != nil {
		return layer{}, errors.Join(err, reader.Close())
	}
	return made, r.finish(ctx, header, made.Digest, nil)
}

// finish ends an upload, with the last of its bytes.
func (r *repository) finish(ctx context.Context, upload http.Header, blob digest.Digest, body io.Reader) error {
	_, err := r.ask(ctx, http.MethodPut, upload.Get("Location")+"&digest="+url.QueryEscape(blob.String()), body, "application/octet-stream")
	return err
}

// pushImage pushes config and manifest of the image with more layers.
func (r *repository) pushImage(ctx context.Context, i *image, added []layer) error {
	config, manifest, err := i.encode(added)
	if err != nil {
		return err
	}
	header, err := r.ask(ctx, http.MethodPost, "/v2/"+r.name+"/blobs/uploads/", nil, "")
	if err != nil {
		return err
	}
	if err := r.finish(ctx, header, i.Config.Digest, bytes.NewReader(config)); err != nil {
		return err
	}
	_, err = r.ask(ctx, http.MethodPut, "/v2/"+r.name+"/manifests/latest", bytes.NewReader(manifest), ocispec.MediaTypeImageManifest)
	return err
}

// Package inspected shows what an image or an index is made of.
package inspected

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/bobbuild/bob/cmd/bob/internal/terminal"
	"github.com/bobbuild/bob/registry/transfer"
	"github.com/containerd/platforms"
	"github.com/docker/go-units"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An Image is what bob inspect shows of an image, an index or another artifact. The
// tags are the names in JSON.
type Image struct {
	Reference    string                           `json:"reference"`
	Digest       digest.Digest                    `json:"digest,omitempty"`
	MediaType    string                           `json:"mediaType"`
	ArtifactType string                           `json:"artifactType,omitempty"`
	ID           digest.Digest                    `json:"id,omitempty"` // of the config
	Platform     string                           `json:"platform,omitempty"`
	Created      *time.Time                       `json:"created,omitempty"`
	Config       *dockerspec.DockerOCIImageConfig `json:"config,omitempty"`
	Layers       []Layer                          `json:"layers,omitempty"`
	History      []ocispec.History                `json:"history,omitempty"`
	Manifests    []Manifest                       `json:"manifests,omitempty"` // of an index
	Subject      *ocispec.Descriptor              `json:"subject,omitempty"`
	Annotations  map[string]string                `json:"annotations,omitempty"`
}

// A Layer is a layer with the history entry that made it, if it is known.
type Layer struct {
	ocispec.Descriptor
	DiffID    digest.Digest `json:"diffID,omitempty"`
	CreatedBy string        `json:"createdBy,omitempty"`
}

// A Manifest is an entry of an index.
type Manifest struct {
	ocispec.Descriptor
	Platform string `json:"platform,omitempty"` // in place of the descriptor's
}

// New returns what bob inspect shows of the image that was found.
func New(found *transfer.Inspection) (*Image, error) {
	v := &Image{Reference: found.Reference, Digest: found.Digest, MediaType: found.MediaType}
	if index := found.Index; index != nil {
		v.ArtifactType, v.Subject, v.Annotations = index.ArtifactType, index.Subject, index.Annotations
		for _, d := range index.Manifests {
			m := Manifest{Descriptor: d}
			if d.Platform != nil {
				m.Platform = platforms.FormatAll(*d.Platform)
			}
			v.Manifests = append(v.Manifests, m)
		}
		return v, nil
	}
	m := found.Manifest
	v.ArtifactType, v.Subject, v.Annotations, v.ID = m.ArtifactType, m.Subject, m.Annotations, m.Config.Digest
	for _, d := range m.Layers {
		v.Layers = append(v.Layers, Layer{Descriptor: d})
	}
	if found.Config == nil {
		if v.ArtifactType == "" {
			v.ArtifactType = m.Config.MediaType
		}
		return v, nil
	}
	var config dockerspec.DockerOCIImage
	if err := json.Unmarshal(found.Config, &config); err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	if config.OS != "" {
		v.Platform = platforms.FormatAll(config.Platform)
	}
	v.Created, v.Config, v.History = config.Created, &config.Config, config.History
	made := slices.DeleteFunc(slices.Clone(config.History), func(h ocispec.History) bool { return h.EmptyLayer })
	for i := range v.Layers {
		if len(config.RootFS.DiffIDs) == len(v.Layers) {
			v.Layers[i].DiffID = config.RootFS.DiffIDs[i]
		}
		if len(made) == len(v.Layers) {
			v.Layers[i].CreatedBy = made[i].CreatedBy
		}
	}
	return v, nil
}

// WriteText writes the image for people.
func (v *Image) WriteText(w io.Writer) error {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	field := func(name string, values ...string) {
		for _, value := range values {
			if value != "" {
				fmt.Fprintf(tw, "%s\t%s\n", name, terminal.Escape(value))
				name = ""
			}
		}
	}
	field("Reference", v.Reference)
	field("Digest", v.Digest.String())
	field("Media type", v.MediaType)
	field("Artifact type", v.ArtifactType)
	field("Image ID", v.ID.String())
	field("Platform", v.Platform)
	if v.Created != nil {
		field("Created", v.Created.Format(time.RFC3339))
	}
	if v.Subject != nil {
		field("Subject", v.Subject.Digest.String())
	}
	if v.Config != nil {
		v.writeConfig(field)
	}
	field("Annotations", pairs(v.Annotations)...)
	_ = tw.Flush() // to a strings.Builder
	v.writeLists(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (v *Image) writeConfig(field func(string, ...string)) {
	c := v.Config
	field("Entrypoint", words(c.Entrypoint))
	field("Cmd", words(c.Cmd))
	field("User", c.User)
	field("Working dir", c.WorkingDir)
	field("Stop signal", c.StopSignal)
	if c.Healthcheck != nil {
		field("Healthcheck", words(c.Healthcheck.Test))
	}
	field("Env", c.Env...)
	field("Ports", slices.Sorted(maps.Keys(c.ExposedPorts))...)
	field("Volumes", slices.Sorted(maps.Keys(c.Volumes))...)
	field("Labels", pairs(c.Labels)...)
}

// writeLists writes what an index, or an image, is made of.
func (v *Image) writeLists(b *strings.Builder) {
	if len(v.Manifests) > 0 {
		b.WriteString("\nManifests\n")
	}
	for _, m := range v.Manifests {
		what := m.Platform
		if of := m.Annotations["vnd.docker.reference.digest"]; of != "" {
			what = m.Annotations["vnd.docker.reference.type"] + " of " + of
		} else if what == "" {
			what = m.MediaType
		}
		fmt.Fprintf(b, "  %s  %s\n", terminal.Escape(m.Digest.String()), terminal.Escape(what))
	}
	if len(v.Layers) > 0 {
		var size int64
		for _, l := range v.Layers {
			size += l.Size
		}
		fmt.Fprintf(b, "\nLayers (%d, %s)\n", len(v.Layers), units.HumanSize(float64(size)))
	}
	for _, l := range v.Layers {
		fmt.Fprintf(b, "  %s  %8s  %s\n", terminal.Escape(l.Digest.String()), units.HumanSize(float64(l.Size)), terminal.Escape(l.MediaType))
		if l.CreatedBy != "" {
			fmt.Fprintf(b, "      %s\n", terminal.Escape(l.CreatedBy))
		}
	}
	if len(v.History) > 0 {
		b.WriteString("\nHistory\n")
	}
	for _, h := range v.History {
		at, what := strings.Repeat(" ", len(time.DateTime)), "layer"
		if h.Created != nil {
			at = h.Created.UTC().Format(time.DateTime)
		}
		if h.EmptyLayer {
			what = "-"
		}
		text := h.CreatedBy
		if text == "" {
			text = h.Comment
		}
		fmt.Fprintf(b, "  %s  %-5s  %s\n", at, what, terminal.Escape(text))
	}
}

// words returns a command in the JSON form of Dockerfiles.
func words(command []string) string {
	if len(command) == 0 {
		return ""
	}
	quoted := make([]string, len(command))
	for i, word := range command {
		quoted[i] = `"` + strings.ReplaceAll(word, `"`, `\"`) + `"`
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// pairs returns the entries of m in order, as name=value.
func pairs(m map[string]string) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, name+"="+m[name])
	}
	return all
}

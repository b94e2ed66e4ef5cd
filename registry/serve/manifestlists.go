package serve

import (
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// tagsOf returns the tags of a repository, in any order, and whether it's known.
func (s *manifestStore) tagsOf(repo string) (tags []string, known bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r := s.repositories[repo]
	if r == nil {
		return nil, false
	}
	return slices.AppendSeq(make([]string, 0, len(r.tags)), maps.Keys(r.tags)), true
}

// names returns all repositories that have manifests, in any order.
func (s *manifestStore) names() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	names := []string{}
	for name, r := range s.repositories {
		if len(r.subjects) > 0 {
			names = append(names, name)
		}
	}
	return names
}

// referrersOf returns the manifests of repo with this subject, sorted. A repository
// that isn't known has none.
func (s *manifestStore) referrersOf(repo string, subject digest.Digest) []digest.Digest {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var referrers []digest.Digest
	if r := s.repositories[repo]; r != nil {
		for d, of := range r.subjects {
			if of == subject {
				referrers = append(referrers, d)
			}
		}
	}
	slices.Sort(referrers)
	return referrers
}

// describe returns the descriptor of a manifest, as it is listed among referrers
// (distribution-spec, section "Listing Referrers").
func (s *manifestStore) describe(repo string, d digest.Digest) (ocispec.Descriptor, error) {
	m, doc, err := s.read(manifestName(repo, d.String()))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	kind := doc.ArtifactType
	if kind == "" && doc.Config != nil {
		kind = doc.Config.MediaType
	}
	return ocispec.Descriptor{
		MediaType: m.ContentType, Digest: d, Size: int64(len(m.Body)),
		ArtifactType: kind, Annotations: doc.Annotations,
	}, nil
}

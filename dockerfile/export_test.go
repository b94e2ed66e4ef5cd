package dockerfile

import dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

// Images returns the configuration behind each step of s, as [Stage.Steps] has the last.
func (s *Stage) Images(base dockerspec.DockerOCIImage) ([]dockerspec.DockerOCIImage, error) {
	var images []dockerspec.DockerOCIImage
	st, err := s.walk(base, func(_ Step, st *state) { images = append(images, cloneImage(st.image)) })
	if err == nil && len(images) > 0 {
		images[len(images)-1] = st.final()
	}
	return images, err
}

package harness

import (
	"context"
	"fmt"
	"sync"
)

// Image pushes the base image called name to Registry once and returns its
// reference below Prefix. Names: busybox (static, with accounts root, daemon,
// alice, nobody), bare (the same without /proc, /sys, /dev, /tmp and /etc),
// layers (busybox and two more layers, with a whiteout, hardlinks, a setuid
// file and sub-second times), onbuild (busybox with triggers), linked (its
// /etc/resolv.conf is a link to what isn't there, as with systemd-resolved, and
// it has an /etc/hosts), debian, and the ones that break unpackers and readers of
// configs: labelled (attributes that no unprivileged user may set), malformed
// (its config and its account files), hidden (whiteouts where nothing is left to
// hide), nodes (see [Nodes]) and outside (triggers that copy from beside the context).
func (l *Lab) Image(ctx context.Context, image string) (string, error) {
	l.mu.Lock()
	once, ok := l.images[image]
	if !ok {
		once = sync.OnceValues(func() (string, error) {
			r, err := l.Registry()
			if err != nil {
				return "", err
			}
			return l.push(ctx, r, image)
		})
		l.images[image] = once
	}
	l.mu.Unlock()
	return once()
}

func (l *Lab) push(ctx context.Context, r *Registry, image string) (string, error) {
	base, err := makeBase(ctx, image)
	if err != nil {
		return "", fmt.Errorf("make base image %s: %w", image, err)
	}
	ref := r.Prefix + "/" + image + ":latest"
	return ref, r.Push(ctx, ref, base)
}

func makeBase(ctx context.Context, image string) (*BaseImage, error) {
	switch image {
	case "busybox":
		return busybox(ctx, true)
	case "bare":
		return busybox(ctx, false)
	case "layers":
		return Layers(ctx)
	case "linked":
		return linked(ctx)
	case "onbuild":
		base, err := busybox(ctx, true)
		if err == nil {
			base.Config.OnBuild = []string{"COPY . /src/", "RUN echo triggered > /triggered"}
		}
		return base, err
	case "debian":
		return debian(ctx)
	}
	return odd(ctx, image)
}

mkdir -p d/e f/g; touch a.go a.x d/b.go d/e/c f/g/d.go f/g/x

/** Something that changes and is followed: each follower gets what is now, then each change. */
export interface Topic<T> {
  publish(item: T): void;
  follow(emit: (item: T) => void): () => void;
}

/** `current` gives a new follower its first item; absent for things that only happen. */
export function createTopic<T>(current?: () => T): Topic<T> {
  const followers = new Set<(item: T) => void>();
  return {
    publish(item) {
      for (const emit of followers) emit(item);
    },
    follow(emit) {
      followers.add(emit);
      if (current) emit(current());
      return () => followers.delete(emit);
    },
  };
}

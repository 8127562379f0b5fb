// Makes images: each of its layers, those that are the same for several of them once, and then the archive.
import { join } from "node:path";
import { makeArchive } from "./archive.ts";
import type { ImageSpec } from "./catalogue.ts";
import { type Layer, type LayerPlaces, makeLayer } from "./layers.ts";

export interface BuildPlaces extends LayerPlaces {
  /** Where the archives of the images are written. */
  readonly images: string;
}

export interface BuiltImage {
  readonly name: string;
  readonly reference: string;
  readonly file: string;
  /** Whether anything of it was made now. */
  readonly made: boolean;
}

/** Where a tree keeps them. */
export function placesIn(tree: string): BuildPlaces {
  const folder = join(tree, ".cache/image");
  return { tree, archives: join(folder, "debian"), layers: join(folder, "layers"), images: folder };
}

/** Makes what is missing or of other inputs than now, one image after the other; `tell` hears of each. */
export async function buildImages(
  images: readonly ImageSpec[],
  places: BuildPlaces,
  tell: (built: BuiltImage) => void = () => undefined,
): Promise<BuiltImage[]> {
  const known = new Map<string, Promise<Layer>>();
  const layerOf = (spec: ImageSpec["layers"][number]) => {
    const layer = known.get(spec.name) ?? makeLayer(spec, places);
    known.set(spec.name, layer);
    return layer;
  };
  const built: BuiltImage[] = [];
  for (const image of images) {
    const layers: Layer[] = [];
    for (const spec of image.layers) layers.push(await layerOf(spec));
    const { file, made } = await makeArchive(image, layers, places.images);
    const result = { name: image.name, reference: image.reference, file, made };
    built.push(result);
    tell(result);
  }
  return built;
}

-- What waits for its location is not at fault itself: the MigrationLocation tells whether anything is.
local hs = { status = "Progressing", message = "Waiting for the Longshore operator" }

if obj.status == nil or obj.status.conditions == nil then
  return hs
end
local seen = obj.status.observedGeneration
if seen == nil or (obj.metadata.generation ~= nil and seen < obj.metadata.generation) then
  hs.message = "Waiting for the Longshore operator to see the change"
  return hs
end

local suspended = { Disabled = true, DryRun = true }
local progressing = { Applying = true, LocationNotReady = true }
for _, condition in ipairs(obj.status.conditions) do
  if condition.type == "Ready" then
    hs.message = condition.message
    if condition.status == "True" then
      hs.status = "Healthy"
    elseif suspended[condition.reason] then
      hs.status = "Suspended"
    elseif not progressing[condition.reason] then
      hs.status = "Degraded"
    end
  end
end
return hs
